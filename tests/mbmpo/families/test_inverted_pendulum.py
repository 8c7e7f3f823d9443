"""The pole on a cart."""

import numpy as np
import pytest
import tensorflow as tf

from mbmpo.families import InvertedPendulum


def test_it_falls_and_imagination_agrees():
    family, rng = InvertedPendulum(), np.random.default_rng(0)
    assert family.control_period == pytest.approx(0.04)
    simulation = family.make_simulation(20)
    simulation.reset(None, family.draw_reset(rng, 20))
    seen = set()
    for _ in range(40):
        before, action = simulation.observe(), rng.uniform(-1, 1, (20, 1))
        outcome = simulation.step(action, np.zeros((20, 0)))
        after = simulation.observe()
        np.testing.assert_array_equal(outcome.terminated, np.abs(after[:, 1]) > 0.2)
        np.testing.assert_array_equal(outcome.reward, 1.0 - outcome.terminated)
        np.testing.assert_array_equal(family.termination(tf.constant(after)), outcome.terminated)
        np.testing.assert_array_equal(family.reward(before, action, after), outcome.reward)
        seen |= set(outcome.terminated.tolist())
    assert seen == {False, True}
    assert family.termination(tf.constant([0.0, np.nan, 0.0, 0.0])).numpy()


def test_a_simple_controller_keeps_it_up():
    family = InvertedPendulum()
    simulation = family.make_simulation(10)
    simulation.reset(None, family.draw_reset(np.random.default_rng(1), 10))
    total = np.zeros(10)
    for _ in range(200):
        x, angle, x_dot, angle_dot = simulation.observe().T
        action = np.clip(2.0 * angle + 0.4 * angle_dot + 0.05 * x + 0.1 * x_dot, -1, 1)
        total += simulation.step(action[:, None], np.zeros((10, 0))).reward
    np.testing.assert_array_equal(total, 200.0)
