"""What all families beside the benchmark's must do: shapes, resets, determinism, the Gymnasium face."""

import time
import warnings

import gin
import numpy as np
import pytest
import tensorflow as tf
from gymnasium.utils.env_checker import check_env

from mbmpo import families
from metarl.experiment.errors import UserError
from metarl.simulation.gymnasium_env import GymnasiumEnv
from metarl.simulation.imaginable import ImaginableFamily

# Class -> observation, action, task, and reset numbers, and whether episodes end early (specification, sections 7.2
# and 7.3).
SIZES = {
    families.Point2D: (2, 2, 0, 2, True),
    families.PointNavigation: (2, 2, 2, 0, True),
    families.Snake: (14, 4, 0, 14, False),
    families.PR2Reach: (17, 7, 0, 17, False),
    families.Reacher: (11, 2, 0, 6, False),
    families.Reacher5DoF: (19, 5, 0, 12, False),
    families.Humanoid: (129, 17, 0, 47, True),
    families.InvertedPendulum: (4, 1, 0, 4, True),
    families.HalfCheetahDirection: (20, 6, 1, 18, False),
    families.HalfCheetahVelocity: (20, 6, 1, 18, False),
    families.SwimmerVelocity: (13, 2, 1, 10, False),
    families.AntDirection: (125, 8, 1, 29, True),
    families.AntGoal: (125, 8, 2, 29, True),
}
IMAGINABLE = [family for family in SIZES if issubclass(family, ImaginableFamily)]
GOAL_FAMILIES = [family for family in SIZES if SIZES[family][2]]


@pytest.fixture(params=SIZES, ids=lambda family: family.__name__)
def family_class(request):
    return request.param


def reset_copies(family, count, seed=0):
    """A simulation after a random reset, and the copies' tasks."""
    rng = np.random.default_rng(seed)
    simulation = family.make_simulation(count)
    tasks = np.stack([family.draw_task(rng) for _ in range(count)])
    simulation.assign_tasks(tasks)
    simulation.reset(None, family.draw_reset(rng, count))
    return simulation, tasks


def roll(family, count, steps, seed=0, action_scale=1.0):
    """Observations [steps + 1, n, O], actions [steps, n, A], rewards and ends [steps, n] of random actions."""
    simulation, tasks = reset_copies(family, count, seed)
    rng = np.random.default_rng(seed + 1)
    actions = rng.uniform(-action_scale, action_scale, (steps, count, family.action_dim))
    observations, rewards, ends = [simulation.observe()], [], []
    for action in actions:
        outcome = simulation.step(action, tasks)
        observations.append(simulation.observe())
        rewards.append(outcome.reward)
        ends.append(outcome.terminated)
    return np.array(observations), actions, np.array(rewards), np.array(ends)


def test_sizes(family_class):
    family = family_class()
    sizes = (family.observation_dim, family.action_dim, family.task_dim, family.reset_dim, family.ends_early)
    assert sizes == SIZES[family_class]
    simulation, tasks = reset_copies(family, 3)
    assert tasks.shape == (3, family.task_dim)
    observation = simulation.observe()
    assert observation.shape == (3, family.observation_dim)
    assert observation.dtype == np.float64
    outcome = simulation.step(np.zeros((3, family.action_dim)), tasks)
    assert outcome.reward.shape == outcome.terminated.shape == (3,)
    assert outcome.reward.dtype == np.float64
    assert outcome.terminated.dtype == bool
    assert set(outcome.info) == set(family.info_keys)
    # The caller may keep what it got.
    kept = [observation.copy(), outcome.reward.copy()]
    simulation.step(np.ones((3, family.action_dim)), tasks)
    np.testing.assert_array_equal(observation, kept[0])
    np.testing.assert_array_equal(outcome.reward, kept[1])


def test_wrong_action_shape(family_class):
    family = family_class()
    simulation, tasks = reset_copies(family, 2)
    with pytest.raises(ValueError, match="actions must have shape"):
        simulation.step(np.zeros((2, family.action_dim + 1)), tasks)


def test_loads_without_a_warning(family_class, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        family = family_class()
        family.make_simulation(1)
    output = capfd.readouterr()
    assert "WARNING" not in output.out + output.err
    if hasattr(family, "model"):
        assert family.model.narena <= 1 << 20


def test_repeats_bit_for_bit(family_class):
    for one, other in zip(roll(family_class(), 3, 5), roll(family_class(), 3, 5), strict=True):
        np.testing.assert_array_equal(one, other)


def test_speed_is_not_pathological(family_class):
    # The slowest makes thousands of steps per second; the bound leaves room for a busy machine.
    family = family_class()
    simulation, tasks = reset_copies(family, 32)
    begin = time.perf_counter()
    for _ in range(10):
        simulation.step(np.full((32, family.action_dim), 0.1), tasks)
    assert 320 / (time.perf_counter() - begin) > 200


def test_copies_do_not_depend_on_each_other(family_class):
    family = family_class()
    numbers = family.draw_reset(np.random.default_rng(3), 3)
    task = family.draw_task(np.random.default_rng(4))[None]
    actions = np.random.default_rng(5).uniform(-1.0, 1.0, (4, 3, family.action_dim))

    def observations(copies):
        simulation = family.make_simulation(len(copies))
        simulation.reset(None, numbers[copies])
        for action in actions:
            simulation.step(action[copies], np.repeat(task, len(copies), axis=0))
        return simulation.observe()

    np.testing.assert_array_equal(observations([0, 1, 2])[2:], observations([2]))


def test_reset_of_some_copies(family_class):
    family = family_class()
    simulation, tasks = reset_copies(family, 3)
    fresh = family.make_simulation(1)
    numbers = family.draw_reset(np.random.default_rng(7), 1)
    simulation.step(np.full((3, family.action_dim), 0.5), tasks)
    before = simulation.observe()
    simulation.reset(np.array([1]), numbers)
    fresh.reset(None, numbers)
    np.testing.assert_array_equal(simulation.observe()[[0, 2]], before[[0, 2]])
    np.testing.assert_array_equal(simulation.observe()[1], fresh.observe()[0])
    if family.reset_dim:
        assert not np.array_equal(simulation.observe()[1], before[1])


def test_resets_are_drawn_row_by_row(family_class):
    family = family_class()
    together = family.draw_reset(np.random.default_rng(11), 4)
    rng = np.random.default_rng(11)
    np.testing.assert_array_equal(together, np.concatenate([family.draw_reset(rng, 1) for _ in range(4)]))
    assert together.shape == (4, family.reset_dim)


def test_actions_beyond_one_act_as_one(family_class):
    if family_class is families.PointNavigation:
        pytest.skip("acts in metres")
    family = family_class()
    states = []
    for size in (1.0, 3.0):
        simulation, tasks = reset_copies(family, 2)
        outcome = simulation.step(np.full((2, family.action_dim), size), tasks)
        states.append(np.concatenate([simulation.observe(), outcome.reward[:, None]], axis=1))
    np.testing.assert_array_equal(*states)


def test_perturbed_state_is_observed(family_class):
    family = family_class()
    simulation, _ = reset_copies(family, 2)
    before = simulation.observe()
    simulation.perturb_state(np.full((2, family.state_dim), 1e-3))
    after = simulation.observe()
    assert np.isfinite(after).all()
    assert 0 < np.abs(after - before).max() < 10.0


@pytest.mark.parametrize("family_class", IMAGINABLE)
def test_initial_observations_are_those_of_resets(family_class):
    family = family_class()
    numbers = family.draw_reset(np.random.default_rng(2), 3)
    simulation = family.make_simulation(3)
    simulation.reset(None, numbers)
    np.testing.assert_array_equal(family.initial_observations(numbers), simulation.observe())
    assert family.can_terminate == family.ends_early


@pytest.mark.parametrize("family_class", IMAGINABLE)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_batch_functions_keep_type_and_leading_axes(family_class, dtype):
    family = family_class()
    rng = np.random.default_rng(0)
    observation, following = rng.normal(size=(2, 3, 4, family.observation_dim)).astype(dtype)
    action = rng.normal(size=(3, 4, family.action_dim)).astype(dtype)
    reward = tf.function(family.reward)(observation, action, following)
    ended = tf.function(family.termination)(tf.constant(following))
    assert reward.shape == ended.shape == (3, 4)
    assert reward.dtype == dtype
    assert ended.dtype == tf.bool
    single = [[family.reward(observation[i, j], action[i, j], following[i, j]) for j in range(4)] for i in range(3)]
    np.testing.assert_allclose(reward, single, rtol=1e-6)


@pytest.mark.parametrize("family_class", GOAL_FAMILIES)
def test_goal_families_have_no_batch_reward(family_class):
    assert not isinstance(family_class(), ImaginableFamily)
    assert family_class.task_key == "goal"


def test_gymnasium_face(family_class):
    environment = GymnasiumEnv(family_class())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_env(environment, skip_render_check=True)
    # The observation is unbounded by specification, which is the one thing Gymnasium remarks on.
    assert [str(w.message) for w in caught if "observation space m" not in str(w.message)] == []


def test_gin_knows_it(family_class):
    assert type(gin.get_configurable(f"mbmpo.{family_class.__name__}")()) is family_class


def test_gin_binds_inherited_options():
    with gin.unlock_config():
        gin.parse_config("Reacher.random_parameters = @RandomParameters()\nRandomParameters.log_scale_limit = 0.1")
    try:
        assert gin.get_configurable("mbmpo.Reacher")().task_dim > 0
    finally:
        gin.clear_config()
    assert families.Reacher().task_dim == 0


@pytest.mark.parametrize("name", ["Snake", "PR2Reach", "Humanoid"])
def test_options_are_checked(name):
    with pytest.raises(UserError, match=f"{name}.scale_action_in_model_reward must be True or False"):
        getattr(families, name)(scale_action_in_model_reward=1)
    with pytest.raises(UserError, match="random_parameters"):
        getattr(families, name)(random_parameters=2.0)


@pytest.mark.parametrize("name", ["Snake", "PR2Reach", "Humanoid", "Reacher"])
def test_random_parameters(name):
    family_class = getattr(families, name)
    parameters = families.RandomParameters(log_scale_limit=0.5)
    family = family_class(random_parameters=parameters)
    assert family.task_dim > 0
    simulation, tasks = reset_copies(family, 2)
    nominal = family_class()
    reference, _ = reset_copies(nominal, 2)
    numbers = family.draw_reset(np.random.default_rng(1), 2)
    simulation.reset(None, numbers)
    reference.reset(None, numbers)
    for _ in range(3):
        simulation.step(np.ones((2, family.action_dim)), tasks)
        reference.step(np.ones((2, family.action_dim)), np.zeros((2, 0)))
    assert np.abs(simulation.observe() - reference.observe()).max() > 1e-6
    assert np.isfinite(simulation.observe()).all()
