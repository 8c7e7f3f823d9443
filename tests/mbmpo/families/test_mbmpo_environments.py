"""The Gymnasium face of MB-MPO's families."""

import subprocess
import sys
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import mbmpo
from mbmpo import families
from mbmpo.environments import FAMILY_OF_ID, HORIZON_OF_ID
from metarl.experiment.errors import UserError
from metarl.simulation.imaginable import ImaginableFamily

# Issue 3, part 1.
BENCHMARK = ["HalfCheetah", "Ant", "Hopper", "Walker2D", "Swimmer", "PR2Reach"]
IMAGINABLE = [*BENCHMARK, "Humanoid", "Snake", "Reacher", "Reacher5DoF", "Point2D", "InvertedPendulum"]
DIRECTED = ["HalfCheetahDirection", "AntDirection"]
OTHERS = [*DIRECTED, "HalfCheetahVelocity", "SwimmerVelocity", "AntGoal", "PointNavigation"]
IDS = [f"MBMPO/{name}-v0" for name in IMAGINABLE + OTHERS]


def test_ids():
    assert sorted(FAMILY_OF_ID) == sorted(IDS)
    assert set(IDS) <= set(gymnasium.registry)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mbmpo.environments.register()


@pytest.mark.parametrize("name", IMAGINABLE + OTHERS)
def test_only_families_with_a_batch_reward_can_be_imagined(name):
    assert issubclass(getattr(families, name), ImaginableFamily) == (name in IMAGINABLE)


@pytest.mark.parametrize("env_id", IDS)
def test_check_env(env_id):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_env(gymnasium.make(env_id).unwrapped, skip_render_check=True)
    # The observation is unbounded by specification, which is the one thing Gymnasium remarks on.
    assert [str(w.message) for w in caught if "observation space m" not in str(w.message)] == []


@pytest.mark.parametrize("env_id", ["MBMPO/HalfCheetah-v0", "MBMPO/HalfCheetahDirection-v0", "MBMPO/Point2D-v0"])
def test_resets_are_random_and_belong_to_the_seed(env_id):
    environment = gymnasium.make(env_id).unwrapped
    first = environment.reset(seed=3)[0]
    second = environment.reset()[0]
    assert np.any(first != second)
    np.testing.assert_array_equal(environment.reset(seed=3)[0], first)
    np.testing.assert_array_equal(environment.reset()[0], second)


def test_time_limits():
    assert {HORIZON_OF_ID[f"MBMPO/{name}-v0"] for name in BENCHMARK} == {200}
    environment = gymnasium.make("MBMPO/Swimmer-v0")
    environment.reset(seed=0)
    for t in range(200):
        *_, truncated, _ = environment.step(np.zeros(2, np.float32))
        assert truncated == (t == 199)


def test_options_reach_the_family():
    random = families.RandomParameters(log_scale_limit=0.5)
    environment = gymnasium.make("MBMPO/Hopper-v0", timestep=0.002, frame_skip=4, random_parameters=random).unwrapped
    assert environment.family.control_period == pytest.approx(0.008)
    _, info = environment.reset(seed=0)
    assert info["task"].shape == (environment.family.task_dim,)
    mass = environment._simulation._batch.expanded("body_mass")[0]
    nbody = environment.family.model.nbody
    np.testing.assert_allclose(mass, environment.family.model.body_mass * info["task"][:nbody])
    with pytest.raises(UserError, match=r"Hopper has no option 'time_step'; did you mean 'timestep'"):
        gymnasium.make("MBMPO/Hopper-v0", time_step=0.002)


def test_importing_is_light():
    code = "import sys, mbmpo; sys.exit(any(m in sys.modules for m in ('tensorflow', 'mujoco', 'gin')))"
    subprocess.run([sys.executable, "-c", code], check=True)
