"""The point mass and two-dimensional navigation (MB-MPO specification, section 7.2)."""

import numpy as np
import pytest
import tensorflow as tf

from mbmpo.families import Point2D, PointNavigation
from metarl.experiment.errors import UserError

NO_TASK = np.zeros((1, 0))


def at(family, positions):
    simulation = family.make_simulation(len(positions))
    simulation.reset(None, np.array(positions, np.float64))
    return simulation


def test_a_full_action_is_a_step_of_a_tenth():
    simulation = at(Point2D(), [[1.0, -1.0]] * 3)
    outcome = simulation.step(np.array([[1.0, -1.0], [0.25, 7.0], [-30.0, 0.0]]), np.zeros((3, 0)))
    expected = np.array([[1.1, -1.1], [1.025, -0.9], [0.9, -1.0]])
    np.testing.assert_allclose(simulation.observe(), expected, rtol=1e-15)
    np.testing.assert_allclose(outcome.reward, -np.sqrt((expected**2).sum(axis=1)), rtol=1e-15)


def test_ends_when_both_coordinates_are_near():
    family = Point2D()
    positions = [[0.0099, -0.0099], [0.0101, 0.0], [0.0, -0.0101], [0.0, 0.0]]
    outcome = at(family, positions).step(np.zeros((4, 2)), np.zeros((4, 0)))
    assert outcome.terminated.tolist() == [True, False, False, True]
    assert family.termination(tf.constant(positions, tf.float64)).numpy().tolist() == [True, False, False, True]
    assert not family.termination(tf.constant([np.nan, 0.0])).numpy()


@pytest.mark.parametrize("family", [Point2D(), Point2D(start_low=(2.0, 2.0), start_high=(6.0, 6.0), goal=(4.0, 4.0))])
def test_batch_functions_equal_the_simulator(family):
    rng = np.random.default_rng(0)
    simulation = at(family, family.draw_reset(rng, 200))
    # Some copies right beside the goal, so that some episodes end.
    simulation.reset(np.arange(50), family.goal + rng.uniform(-0.02, 0.02, (50, 2)))
    before, action = simulation.observe(), rng.normal(size=(200, 2))
    action[:50] *= 0.05
    outcome = simulation.step(action, np.zeros((200, 0)))
    after = simulation.observe()
    np.testing.assert_allclose(family.reward(before, action, after), outcome.reward, rtol=1e-14)
    np.testing.assert_array_equal(family.termination(tf.constant(after)), outcome.terminated)
    assert 5 < outcome.terminated.sum() < 50
    single = family.reward(*(tf.constant(x, tf.float32) for x in (before, action, after)))
    np.testing.assert_allclose(single, outcome.reward, rtol=1e-5, atol=1e-6)


def test_starts_fill_the_box():
    starts = Point2D().draw_reset(np.random.default_rng(0), 4000)
    assert np.abs(starts).max() <= 2.0
    np.testing.assert_allclose(starts.mean(axis=0), 0.0, atol=0.08)
    # A uniform distribution of width 4 has standard deviation 4 / sqrt(12).
    np.testing.assert_allclose(starts.std(axis=0), 4 / np.sqrt(12), rtol=0.05)
    study = Point2D(start_low=(2.0, 2.0), start_high=(6.0, 6.0), goal=(4.0, 4.0)).draw_reset(
        np.random.default_rng(0), 9
    )
    np.testing.assert_allclose(study, starts[:9] + 4.0, rtol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"goal": (1.0,)}, "Point2D.goal must be two numbers"),
        ({"goal": 3.0}, "Point2D.goal must be two numbers"),
        ({"start_low": (0.0, float("nan"))}, r"Point2D.start_low\[1\] must be finite"),
        ({"start_low": (3.0, 0.0)}, "start_low must not exceed start_high"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(UserError, match=message):
        Point2D(**options)


class TestNavigation:
    def test_acts_in_metres_clipped_to_a_tenth(self):
        simulation = PointNavigation().make_simulation(3)
        goals = np.array([[0.3, 0.4], [0.05, 0.0], [0.1, -0.1]])
        outcome = simulation.step(np.array([[0.0, 0.0], [0.05, 0.02], [5.0, -0.3]]), goals)
        np.testing.assert_allclose(simulation.observe(), [[0, 0], [0.05, 0.02], [0.1, -0.1]], rtol=1e-15)
        np.testing.assert_allclose(outcome.reward, [-0.5, -0.02, 0.0], atol=1e-15)
        assert outcome.terminated.tolist() == [False, False, True]

    def test_normalised_actions(self):
        simulation = PointNavigation(action_scale=0.1).make_simulation(1)
        simulation.step(np.array([[0.5, -2.0]]), np.zeros((1, 2)))
        np.testing.assert_allclose(simulation.observe(), [[0.05, -0.1]], rtol=1e-15)

    def test_starts_at_the_origin(self):
        simulation = PointNavigation().make_simulation(2)
        simulation.step(np.ones((2, 2)), np.ones((2, 2)))
        simulation.reset(np.array([1]), np.zeros((1, 0)))
        np.testing.assert_allclose(simulation.observe(), [[0.1, 0.1], [0.0, 0.0]])

    def test_goals(self):
        rng = np.random.default_rng(0)
        goals = np.array([PointNavigation().draw_task(rng) for _ in range(2000)])
        assert np.abs(goals).max() <= 0.5
        np.testing.assert_allclose(goals.std(axis=0), 1 / np.sqrt(12), rtol=0.05)

    @pytest.mark.parametrize("value", [0.0, -1.0, "1", float("inf")])
    def test_bad_options(self, value):
        with pytest.raises(UserError, match=r"PointNavigation\.action_scale"):
            PointNavigation(action_scale=value)
        with pytest.raises(UserError, match=r"PointNavigation\.goal_limit"):
            PointNavigation(goal_limit=value)
