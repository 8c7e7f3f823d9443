"""Batch rewards and terminations against the original's numbers (MB-MPO specification, section 7.2)."""

import re

import numpy as np
import pytest
import tensorflow as tf
from kinds import kinds_of

from mbmpo import families

# The golden files' names of environments, without case and punctuation.
FAMILIES = {
    "halfcheetah": families.HalfCheetah,
    "ant": families.Ant,
    "hopper": families.Hopper,
    "walker2d": families.Walker2D,
    "walker": families.Walker2D,
    "swimmer": families.Swimmer,
    "pr2": families.PR2Reach,
    "pr2reach": families.PR2Reach,
    "humanoid": families.Humanoid,
    "snake": families.Snake,
    "reacher": families.Reacher,
    "reacher5dof": families.Reacher5DoF,
    "reacher5": families.Reacher5DoF,
    "5dof": families.Reacher5DoF,
    "point2d": families.Point2D,
    "point": families.Point2D,
}
# Where the port differs on purpose (O-16): the humanoid's end, the reacher's distance.
DIFFERENT_END = ("humanoid",)
DIFFERENT_REWARD = ("reacher",)


def environments(golden):
    """Names of the environments in a file."""
    return sorted(name.removesuffix(".has_done") for name in golden if name.endswith(".has_done"))


def plain(name):
    """The key in FAMILIES of a file's environment; case, punctuation and what stands around the key do not matter."""
    letters = re.sub(r"[^a-z0-9]", "", name.lower())
    known = [key for key in FAMILIES if key in letters]
    assert known, f"no task family for the golden file's environment {name!r}"
    return max(known, key=len)


def check_environment(name, golden):
    """One environment of a file: everything comparable is compared; an unknown name fails."""
    family = FAMILIES[plain(name)]()
    observation, action, following = (golden[f"{name}.{part}"] for part in ("obs", "act", "obs_next"))
    assert following.shape[1:] == (family.observation_dim,)
    assert action.shape[1:] == (family.action_dim,)
    with np.errstate(all="ignore"):
        reward = family.reward(*map(tf.constant, (observation, action, following)))
        done = family.termination(tf.constant(following))
    assert reward.dtype == tf.float64
    if plain(name) not in DIFFERENT_REWARD:
        np.testing.assert_allclose(reward, golden[f"{name}.reward"], rtol=1e-12, atol=1e-13)
        if f"{name}.reward_single" in golden:
            np.testing.assert_allclose(reward, golden[f"{name}.reward_single"], rtol=1e-12, atol=1e-13)
    assert family.can_terminate == bool(golden[f"{name}.has_done"])
    if golden[f"{name}.has_done"]:
        if plain(name) not in DIFFERENT_END:
            np.testing.assert_array_equal(done, golden[f"{name}.done"])
    else:
        assert not done.numpy().any()


def test_rewards_and_ends(rewards_golden):
    names = environments(rewards_golden)
    assert names
    for name in names:
        check_environment(name, rewards_golden)


def square(x):
    return (x**2).sum(axis=-1)


# Section 7.2 written out again, in NumPy: (o, a, o') -> reward and, where episodes can end, done.
FORMULAS = {
    "half_cheetah": lambda o, a, p: (np.clip(p[:, 8] - 0.1 * square(a), -1000, 1000), None),
    "ant": lambda o, a, p: (
        p[:, 13] - 0.005 * square(a) + 1,
        ~(np.isfinite(p).all(axis=1) & (p[:, 0] >= 0.2) & (p[:, 0] <= 1.0)),
    ),
    "hopper": lambda o, a, p: (
        np.clip(p[:, 5] + 1 - 0.001 * square(a), -1000, 1000),
        ~(
            np.isfinite(p).all(axis=1)
            & (np.abs(p[:, 3:]) < 100).all(axis=1)
            & (p[:, 0] > 0.7)
            & (np.abs(p[:, 1]) < 0.2)
        ),
    ),
    "walker2d": lambda o, a, p: (
        p[:, 8] + 1 - 0.001 * square(a),
        ~((p[:, 0] > 0.8) & (p[:, 0] < 2.0) & (p[:, 1] > -1.0) & (p[:, 1] < 1.0)),
    ),
    "swimmer": lambda o, a, p: (np.clip(p[:, 3] - 0.0001 * square(a), -1000, 1000), None),
    "pr2_env_reach": lambda o, a, p: (-square(p[:, -3:]) - 0.005 * square(a / 3), None),
    "humanoid": lambda o, a, p: (
        p[:, 22] + 0.2 - 0.0005 * square(a / 0.4) - 0.005 * (p[:, 23] ** 2 + p[:, 24] ** 2),
        np.zeros(len(p), bool),
    ),
    "snake": lambda o, a, p: (np.clip(p[:, 7] - 0.005 * square(a / 50), -1000, 1000), None),
    "reacher": lambda o, a, p: (np.zeros(len(p)), None),
    "Reacher-5DoF": lambda o, a, p: (-np.sqrt(square(p[:, -2:])) - 0.01 * square(a), None),
    "point_env_2d": lambda o, a, p: (-np.sqrt(square(p)), (np.abs(p) < 0.01).all(axis=1)),
}


def synthetic(name, rows=200):
    """A file's arrays of one environment, with extreme and non-finite entries, and states near every threshold."""
    rng = np.random.default_rng(len(name))
    family = FAMILIES[plain(name)]
    golden = {
        f"{name}.obs": rng.normal(size=(rows, family.observation_dim)),
        f"{name}.act": rng.uniform(-1.5, 1.5, (rows, family.action_dim)),
        f"{name}.obs_next": rng.normal(size=(rows, family.observation_dim)),
    }
    following = golden[f"{name}.obs_next"]
    following[: rows // 2, 0] = rng.uniform(0.0, 2.2, rows // 2)
    following[: rows // 2, 1] = rng.uniform(-1.2, 1.2, rows // 2)
    following[::3, :2] *= 0.2
    following[5::9, : family.observation_dim] *= 1e-3
    following[1], following[2] = 5e3, -5e3
    following[3:40:4, -1] = 99.0 + np.arange(10) / 5
    if name in ("ant", "hopper"):
        following[::17, family.observation_dim // 3], following[6::17, -1] = np.nan, np.inf
    reward, done = FORMULAS[name](golden[f"{name}.obs"], golden[f"{name}.act"], following)
    golden |= {f"{name}.reward": reward, f"{name}.has_done": np.array(done is not None)}
    if done is not None:
        golden[f"{name}.done"] = done
        assert name == "humanoid" or 0 < done.sum() < rows
    return golden


@pytest.mark.parametrize("name", FORMULAS)
def test_a_file_with_any_environment_is_handled(name, tmp_path):
    np.savez(tmp_path / "mbmpo_env_reward_done.npz", **synthetic(name))
    with np.load(tmp_path / "mbmpo_env_reward_done.npz") as arrays:
        golden = {key: arrays[key] for key in arrays.files}
    assert kinds_of(tmp_path / "mbmpo_env_reward_done.npz") == ["rewards"]
    assert environments(golden) == [name]
    check_environment(name, golden)
    if plain(name) not in DIFFERENT_REWARD:
        golden[f"{name}.reward"][7] *= 1 + 1e-10
        with pytest.raises(AssertionError):
            check_environment(name, golden)


def test_an_unknown_environment_is_not_passed_over():
    with pytest.raises(AssertionError, match="no task family"):
        check_environment("cassie", {})


@pytest.mark.parametrize("name", FORMULAS)
def test_single_precision_stays_single(name):
    golden = synthetic(name)
    family = FAMILIES[plain(name)]()
    parts = [tf.constant(golden[f"{name}.{part}"], tf.float32) for part in ("obs", "act", "obs_next")]
    reward = tf.function(family.reward)(*parts)
    assert reward.dtype == tf.float32
    assert reward.shape == (200,)
    assert tf.function(family.termination)(parts[2]).dtype == tf.bool
