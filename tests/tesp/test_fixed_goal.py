"""One goal of a TESP family as something to imagine: batch reward and end against the simulator."""

import numpy as np
import pytest
import tensorflow as tf

from metarl.experiment.errors import UserError
from tesp.families import Ant, Point, Reacher2Link, Reacher4Link, Wheeled
from tesp.families.fixed_goal import FixedGoal
from tesp.families.goals import draw_goal_sets
from tesp.learner import TespLearner
from tesp.methods import MAML

FAMILIES = (Wheeled, Ant, Reacher2Link, Reacher4Link, Point)
MUJOCO = FAMILIES[:4]
NO_TASKS = np.zeros((6, 0))


def steps(fixed, count=25, num_copies=6, scale=1.5, seed=0):
    """Observation, action, next observation (tensors), and the simulator's outcome, step by step."""
    simulation = fixed.make_simulation(num_copies)
    simulation.reset()
    rng = np.random.default_rng(seed)
    for _ in range(count):
        before = simulation.observe()
        action = scale * rng.standard_normal((num_copies, fixed.action_dim))
        outcome = simulation.step(action, NO_TASKS)
        yield *(tf.constant(array, tf.float64) for array in (before, action, simulation.observe())), outcome


@pytest.mark.parametrize("family", MUJOCO)
def test_batch_reward_is_the_simulator_s_with_fresh_kinematics(family):
    """To rounding; the control cost sees clipped actions in both."""
    fixed = FixedGoal(family=family(ctrl_cost_coeff=0.3, fresh_kinematics=True))
    for observation, action, next_observation, outcome in steps(fixed):
        np.testing.assert_allclose(fixed.reward(observation, action, next_observation), outcome.reward, atol=1e-9)
        np.testing.assert_array_equal(fixed.termination(next_observation), outcome.terminated)


@pytest.mark.parametrize(
    ("family", "tolerance"),
    [(Wheeled, 0.05), (Ant, 1e-3), (Reacher2Link, 1e-9), (Reacher4Link, 1e-9), (Point, 1e-12)],
)
def test_batch_reward_by_default_differs_by_the_stale_position_only(family, tolerance):
    """Wheeled: 0.01 s of at most some m/s. The reachers observe what the reward is about."""
    fixed = FixedGoal(family=family())
    for observation, action, next_observation, outcome in steps(fixed):
        np.testing.assert_allclose(fixed.reward(observation, action, next_observation), outcome.reward, atol=tolerance)


@pytest.mark.parametrize("family", FAMILIES)
def test_arrival_ends_an_episode_and_near_misses_do_not(family):
    inner = family()
    fixed = FixedGoal(family=inner, goal=(0.4, -0.3))
    near, far = 0.99 * inner.arrival_threshold, 1.01 * inner.arrival_threshold
    offsets = np.array([[near, 0.0], [0.0, -near], [far, 0.0], [0.0, -far], [near, near]])
    observation = np.repeat(fixed.initial_observations(np.zeros((1, 0))), len(offsets), axis=0)
    observation[:, list(inner.position_columns)] = offsets + np.array([0.4, -0.3])
    ended = fixed.termination(tf.constant(observation, tf.float32)).numpy()
    assert ended.tolist() == [True, True, False, False, family is Point]
    expected = inner.has_arrived(offsets, np.linalg.norm(offsets, axis=1))
    np.testing.assert_array_equal(ended, expected)


def test_an_ant_that_fell_ends_and_pays():
    fixed = FixedGoal(family=Ant(unhealthy_penalty=2.0), goal=(0.4, -0.3))
    observation = np.repeat(fixed.initial_observations(np.zeros((1, 0))), 4, axis=0).astype(np.float32)
    observation[:, 2] = 0.25, 0.14, 0.46, 0.25
    observation[3, 20] = np.nan
    action = tf.zeros((4, 8))
    assert fixed.termination(tf.constant(observation)).numpy().tolist() == [False, True, True, True]
    reward = fixed.reward(tf.constant(observation), action, tf.constant(observation)).numpy()
    np.testing.assert_allclose(reward, [-0.5, -2.5, -2.5, -2.5], rtol=1e-6)


def test_leading_axes_and_type_are_those_of_the_observation():
    fixed = FixedGoal(family=Wheeled())
    for dtype in (tf.float32, tf.float64):
        observation, action = tf.zeros((3, 5, 9), dtype), tf.zeros((3, 5, 2), dtype)
        reward = fixed.reward(observation, action, observation)
        assert reward.dtype == dtype
        assert reward.shape == fixed.termination(observation).shape == (3, 5)
        np.testing.assert_allclose(reward, -np.linalg.norm(fixed.goal), rtol=1e-6)


def test_the_goal_is_the_first_training_goal_of_the_seed_or_what_is_said():
    assert FixedGoal(family=Wheeled()).goal == pytest.approx([-0.248934, 0.660973], abs=1e-6)
    for seed in (1, 7):
        expected = draw_goal_sets(Reacher4Link(), seed).train[0]
        np.testing.assert_array_equal(FixedGoal(family=Reacher4Link(), goal_seed=seed).goal, expected)
    assert FixedGoal(family=Point(), goal=[1, -2.5]).goal.tolist() == [1.0, -2.5]


def test_all_copies_begin_where_the_simulator_begins():
    fixed = FixedGoal(family=Reacher2Link())
    observations = fixed.initial_observations(np.zeros((3, 0)))
    np.testing.assert_array_equal(observations, fixed.make_simulation(3).observe())
    observations[:] = 0.0
    assert fixed.initial_observations(np.zeros((2, 0)))[1, 6] == pytest.approx(1.7)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"family": MAML(hidden_sizes=(4,))}, "FixedGoal.family must be a task family of goals"),
        ({"family": Point(), "goal": (1.0,)}, "FixedGoal.goal must be two numbers"),
        ({"family": Point(), "goal": 3}, "FixedGoal.goal must be two numbers"),
        ({"family": Point(), "goal": (1.0, float("nan"))}, r"FixedGoal.goal\[1\] must be finite"),
        ({"family": Point(), "goal_seed": -1}, "FixedGoal.goal_seed must be at least 0"),
    ],
)
def test_mistakes_are_one_line(options, words):
    with pytest.raises(UserError, match=words):
        FixedGoal(**options)


def test_a_family_that_does_not_observe_its_position_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(Point, "position_columns", None)
    with pytest.raises(UserError, match="point has no batch reward, because its observation does not hold"):
        FixedGoal(family=Point())


def test_meta_training_on_one_goal_is_refused_by_name():
    with pytest.raises(UserError, match="point_fixed_goal has a single task"):
        TespLearner(method=MAML(hidden_sizes=(4,)), family=FixedGoal(family=Point()))
