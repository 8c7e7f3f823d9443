"""The five benchmark families that move along x, and the rules all families share."""

import importlib.resources
import warnings

import mujoco
import numpy as np
import pytest
import tensorflow as tf

from mbmpo import families
from mbmpo.environments import FAMILY_OF_ID
from metarl.experiment.errors import UserError
from metarl.sampling.noise import NoiseKey
from metarl.sampling.random_actions import collect_random, uniform_actions
from metarl.sampling.sampler import Sampler

# Section 7.2: file, seconds per physics step, frame skip, entries of qpos not observed, weight of the control cost,
# bonus for being alive, whether velocities are clipped.
TABLE = {
    "HalfCheetah": ("half_cheetah.xml", 0.01, 1, 1, 0.1, 0.0, False),
    "Ant": ("ant.xml", 0.01, 2, 2, 0.005, 1.0, False),
    "Hopper": ("hopper.xml", 0.004, 5, 1, 0.001, 1.0, True),
    "Walker2D": ("walker2d.xml", 0.004, 5, 1, 0.001, 1.0, True),
    "Swimmer": ("swimmer.xml", 0.01, 1, 2, 1e-4, 0.0, False),
}
NAMES = list(TABLE)


def make(name, **options):
    return getattr(families, name)(**options)


def asset(name):
    path = importlib.resources.files("gymnasium") / "envs/mujoco/assets" / TABLE[name][0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return mujoco.MjModel.from_xml_path(str(path))


def roll(family, steps, num_copies=6, seed=0, scale=1.0):
    """Yields (observation before, actions, observation after, outcome, simulation) of uniform random actions."""
    rng = np.random.default_rng(seed)
    simulation = family.make_simulation(num_copies)
    simulation.reset(None, family.draw_reset(rng, num_copies))
    before = simulation.observe()
    for _ in range(steps):
        actions = rng.uniform(-scale, scale, (num_copies, family.action_dim))
        outcome = simulation.step(actions, np.zeros((num_copies, family.task_dim)))
        after = simulation.observe()
        yield before, actions, after, outcome, simulation
        before = after


@pytest.mark.parametrize("name", NAMES)
def test_model_is_the_asset_with_the_changes_of_section_7_4(name):
    family, original = make(name), asset(name)
    file, timestep, frame_skip, *_ = TABLE[name]
    assert family.model_file == file
    assert family.model.opt.timestep == timestep
    assert family.frame_skip == frame_skip
    assert family.control_period == pytest.approx(timestep * frame_skip)
    assert family.model.narena < 3e6
    for field in ("body_mass", "body_inertia", "body_pos", "dof_damping", "dof_armature", "geom_friction", "geom_size"):
        np.testing.assert_allclose(getattr(family.model, field), getattr(original, field), rtol=1e-14)
    for field in ("jnt_range", "jnt_stiffness", "actuator_gear", "body_invweight0", "dof_invweight0"):
        np.testing.assert_allclose(getattr(family.model, field), getattr(original, field), rtol=1e-13)
    assert family.model.stat.meaninertia == pytest.approx(original.stat.meaninertia, rel=1e-13)
    assert family.model.opt.integrator == original.opt.integrator
    np.testing.assert_array_equal(family.model.actuator_ctrlrange, [[-1.0, 1.0]] * family.action_dim)


def test_particular_numbers():
    assert make("HalfCheetah").model.body_mass.sum() == pytest.approx(14.0)
    walker = make("Walker2D").model
    assert [walker.geom(f"foot{side}_geom").friction[0] for side in ("", "_left")] == [0.9, 1.9]
    np.testing.assert_array_equal(
        make("Ant").start_qpos, [0, 0, 0.55, 1, 0, 0, 0, 0, 1, 0, -1, 0, -1, 0, 1], strict=False
    )
    submission = make("Hopper", timestep=0.002, frame_skip=4)
    assert submission.model.opt.timestep == 0.002
    assert submission.control_period == pytest.approx(0.008)


@pytest.mark.parametrize("name", NAMES)
def test_a_step_equals_the_asset_stepped_by_hand(name):
    """Physics, observation and real reward; actions reach beyond ±1, where they are clipped."""
    _, timestep, frame_skip, hidden, weight, bonus, clips = TABLE[name]
    family, model = make(name), asset(name)
    model.opt.timestep = timestep
    ((_, actions, after, outcome, simulation),) = roll(family, 1, scale=1.5)
    qpos, qvel = simulation.qpos, simulation.qvel
    start, speed = family.reset_state(family.draw_reset(np.random.default_rng(0), 6))
    data = mujoco.MjData(model)
    for copy in range(6):
        mujoco.mj_resetData(model, data)
        data.qpos[:], data.qvel[:] = start[copy], speed[copy]
        data.ctrl[:] = np.clip(actions[copy], -1, 1)
        mujoco.mj_step(model, data, frame_skip)
        np.testing.assert_allclose(qpos[copy], data.qpos, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(qvel[copy], data.qvel, rtol=1e-6, atol=1e-7)
        observed = np.clip(data.qvel, -10, 10) if clips else data.qvel
        expected = np.concatenate([data.qpos[hidden:], observed])
        np.testing.assert_allclose(after[copy], expected, rtol=1e-6, atol=1e-7)
        velocity = (data.qpos[0] - start[copy, 0]) / (timestep * frame_skip) if name != "Ant" else data.qvel[0]
        reward = velocity + bonus - weight * (data.ctrl**2).sum()
        assert outcome.reward[copy] == pytest.approx(reward, rel=1e-6, abs=1e-7)
        assert outcome.info["reward_run"][copy] == pytest.approx(velocity, rel=1e-6, abs=1e-7)
        assert outcome.info["reward_ctrl"][copy] == pytest.approx(-weight * (data.ctrl**2).sum())


@pytest.mark.parametrize("name", NAMES)
def test_imagined_reward_and_end_agree_with_the_simulator(name):
    """Exactly, but for the velocity: imagination's is the one at the end of the step (O-12)."""
    family = make(name)
    ends, velocities = 0, []
    for before, actions, after, outcome, _ in roll(family, 60, num_copies=20):
        imagined = family.reward(*map(tf.constant, (before, actions, after))).numpy()
        velocity = after[:, family.velocity_index]
        real = outcome.reward - outcome.info["reward_run"] + velocity
        np.testing.assert_allclose(imagined, real, rtol=1e-12, atol=1e-12)
        if name == "Ant":
            np.testing.assert_allclose(imagined, outcome.reward, rtol=1e-12, atol=1e-12)
        midway = (before[:, family.velocity_index] + velocity) / 2
        velocities.append((midway, outcome.info["reward_run"]))
        np.testing.assert_array_equal(family.termination(tf.constant(after)).numpy(), outcome.terminated)
        ends += outcome.terminated.sum()
    assert family.ends_early == family.can_terminate
    assert (ends > 0) == (name in ("Hopper", "Walker2D"))
    # The mean over the step is close to the mean of its two ends.
    correlation = np.corrcoef(np.concatenate(velocities, axis=1))[0, 1]
    assert correlation > (0.6 if name == "Ant" else 0.9)


@pytest.mark.parametrize(
    ("name", "index", "inside", "outside"),
    [
        ("Ant", 2, (0.2001, 0.9999), (0.19, 1.01)),
        ("Hopper", 1, (0.75, 5.0), (0.69, 0.5, -1.0)),
        ("Hopper", 2, (0.19, -0.19), (0.21, -0.21)),
        ("Hopper", 5, (), (100.5, -101.0)),
        ("Walker2D", 1, (0.85, 1.95), (0.75, 2.05)),
        ("Walker2D", 2, (0.95, -0.95), (1.05, -1.05)),
    ],
)
def test_real_ends(name, index, inside, outside):
    family = make(name)
    for value, ended in [(v, False) for v in inside] + [(v, True) for v in outside]:
        simulation = family.make_simulation(1)
        qpos = family.start_qpos.copy()
        qpos[index] = value
        simulation.place(None, qpos[None], np.zeros((1, family.model.nv)))
        assert family.has_ended(simulation)[0] == ended, value


@pytest.mark.parametrize("name", NAMES)
def test_a_diverged_copy(name):
    """It ends an episode with reward 0 where episodes can end; else its NaN reaches the trainer."""
    family = make(name)
    simulation = family.make_simulation(2)
    simulation.qvel[0] = np.inf
    outcome = simulation.step(np.zeros((2, family.action_dim)), np.zeros((2, 0)))
    assert np.isfinite(outcome.reward[1])
    assert outcome.terminated[0] == family.ends_early
    assert outcome.reward[0] == 0.0 if family.ends_early else np.isnan(outcome.reward[0])


@pytest.mark.parametrize("name", NAMES)
def test_reset_noise(name):
    """Independent, on every coordinate: positions 0.01, velocities 0.1 (section 7.1)."""
    family, count = make(name), 4000
    nq, nv = family.model.nq, family.model.nv
    numbers = family.draw_reset(np.random.default_rng(1), count)
    simulation = family.make_simulation(count)
    simulation.reset(None, numbers)
    offset = np.concatenate([simulation.qpos - family.start_qpos, simulation.qvel], axis=1)
    scaled = offset / np.repeat([0.01, 0.1], [nq, nv])
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=5 / np.sqrt(count))
    np.testing.assert_allclose(scaled.std(axis=0), 1, atol=5 / np.sqrt(2 * count))
    correlation = np.corrcoef(scaled.T) - np.eye(nq + nv)
    assert np.abs(correlation).max() < 5.5 / np.sqrt(count)
    np.testing.assert_array_equal(family.initial_observations(numbers), simulation.observe())
    # Row by row: the first rows do not depend on how many are drawn.
    np.testing.assert_array_equal(family.draw_reset(np.random.default_rng(1), 3), numbers[:3])


@pytest.mark.parametrize("name", sorted(set(FAMILY_OF_ID.values())))
def test_a_reset_leaves_nothing_of_the_past(name):
    family = getattr(families, name)()
    rng = np.random.default_rng(2)
    tasks = np.stack([family.draw_task(rng) for _ in range(3)])
    numbers = family.draw_reset(rng, 3)
    actions = rng.uniform(-1, 1, (9, 3, family.action_dim))
    used, fresh = family.make_simulation(3), family.make_simulation(3)
    for a in actions:
        used.step(a, tasks)
    trajectories = []
    for simulation in (used, fresh):
        simulation.assign_tasks(tasks)
        simulation.reset(None, numbers)
        first = simulation.observe()
        rewards = [simulation.step(a, tasks).reward for a in actions]
        trajectories.append((first, *rewards, simulation.observe()))
    np.testing.assert_array_equal(np.concatenate(trajectories[0], None), np.concatenate(trajectories[1], None))
    # Some copies alone, in another order.
    fresh.reset(np.array([0, 2]), numbers[[0, 2]])
    np.testing.assert_array_equal(fresh.observe()[[0, 2]], used_first := trajectories[0][0][[0, 2]])
    assert used_first.shape == (2, family.observation_dim)


@pytest.mark.parametrize("name", sorted(set(FAMILY_OF_ID.values())))
def test_loading_says_nothing(name, capfd):
    """MuJoCo's deprecation of settotalmass, in gymnasium's half_cheetah.xml, must not reach the user."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        getattr(families, name)().make_simulation(2)
    out, err = capfd.readouterr()
    assert out + err == ""


def test_random_half_cheetah_costs_what_the_specification_says():
    """Section 12.2: control cost alone, per 200 steps: about -40 of uniform actions, -62 of a clipped unit Gaussian."""
    family = make("HalfCheetah")
    _, episodes, _ = collect_random(family, 20_000, 100, 200, seed=3)
    assert episodes.length.tolist() == [200] * 100
    assert episodes.sums["reward_ctrl"].mean() == pytest.approx(-40, abs=0.5)
    assert -75 < episodes.episode_return.mean() < -45

    def gaussian(arguments, observation, normal):
        return tf.concat([tf.zeros_like(normal), tf.zeros_like(normal), normal], -1)

    sampler = Sampler(family, gaussian, 10, 10, 200, stop_rule="global")
    _, episodes, _ = sampler.collect({}, np.zeros((10, 0)), NoiseKey(0, 0, "test", range(10)))
    assert episodes.sums["reward_ctrl"].mean() == pytest.approx(-62, abs=0.7)
    assert -110 < episodes.episode_return.mean() < -65


def test_random_data_is_8000_steps_for_5000():
    steps, _, _ = collect_random(make("Swimmer"), 5000, 20, 200, seed=3)
    assert steps.valid.sum() == 8000


@pytest.mark.parametrize(("name", "rule"), [("HalfCheetah", "global"), ("Hopper", "per_task"), ("Hopper", "global")])
def test_samples_do_not_depend_on_threads_or_lanes(name, rule):
    family, M, R, H = make(name), 4, 20, 25
    tasks = np.zeros((M, 0))
    batches, lanes = [], set()
    for threads in (1, 2, 3):
        sampler = Sampler(family, uniform_actions, M, R, H, threads, stop_rule=rule)
        lanes.add(sampler.num_lanes)
        batches.append(sampler.collect({}, tasks, NoiseKey(1, 2, "test", range(M))))
    assert lanes == ({1} if rule == "global" and family.ends_early else {1, 2})
    for other in batches[1:]:
        tf.nest.map_structure(np.testing.assert_array_equal, batches[0], other)
    if rule == "per_task" or not family.ends_early:
        part = Sampler(family, uniform_actions, 2, R, H, 1, stop_rule=rule)
        part = part.collect({}, tasks[2:], NoiseKey(1, 2, "test", (2, 3)))
        for whole, mine in zip(batches[0].steps, part.steps, strict=True):
            np.testing.assert_array_equal(whole[2:], mine)


@pytest.mark.parametrize("name", NAMES)
def test_target_velocity_holds_in_both_rewards(name):
    """O-20: -|v - target|."""
    plain, aimed = make(name), make(name, target_velocity=0.7)
    for (before, actions, after, outcome, _), (*_, other, _) in zip(roll(plain, 3), roll(aimed, 3), strict=True):
        velocity = outcome.info["reward_run"]
        np.testing.assert_allclose(other.reward, outcome.reward - velocity - np.abs(velocity - 0.7), rtol=1e-10)
        imagined = [family.reward(before, actions, after).numpy() for family in (plain, aimed)]
        velocity = after[:, plain.velocity_index]
        np.testing.assert_allclose(imagined[1], imagined[0] - velocity - np.abs(velocity - 0.7), rtol=1e-10)


def test_clipped_actions_in_the_imagined_reward_are_an_option():
    """O-11: off by default."""
    action, zeros = np.array([[2.0, -3.0, 0.5, 0.0, 0.0, 0.0]]), np.zeros((1, 17))
    assert make("HalfCheetah").reward(zeros, action, zeros).numpy() == pytest.approx(-1.325)
    clipped = make("HalfCheetah", clip_action_in_model_reward=True)
    assert clipped.reward(zeros, action, zeros).numpy() == pytest.approx(-0.225)


def test_bad_options_are_one_line():
    with pytest.raises(UserError, match=r"HalfCheetah.target_velocity must be a number, got 'fast'"):
        make("HalfCheetah", target_velocity="fast")
    with pytest.raises(UserError, match=r"Hopper.frame_skip must be at least 1, got 0"):
        make("Hopper", frame_skip=0)
    with pytest.raises(UserError, match=r"Walker2D.timestep must be at least"):
        make("Walker2D", timestep=0.0)
    with pytest.raises(UserError, match=r"Ant.clip_action_in_model_reward must be True or False"):
        make("Ant", clip_action_in_model_reward=1)
