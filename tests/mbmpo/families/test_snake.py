"""The snake (MB-MPO specification, sections 7.2 and 7.4)."""

import numpy as np
import pytest
import tensorflow as tf

from mbmpo.families import Snake

# A capsule of length 1 m, radius 0.1 m, density 1000 kg/m³.
LINK_MASS = 1000 * (np.pi * 0.1**2 * 1.0 + 4 / 3 * np.pi * 0.1**3)


def com_of(qpos):
    """Centre of mass by hand: five equal links, each with its middle 0.5 m along its direction."""
    joint = qpos[:2] - [0.0, 0.0]
    middles, angle = [], 0.0
    for turn in qpos[2:]:
        angle += turn
        direction = np.array([np.cos(angle), np.sin(angle)])
        middles.append(joint + 0.5 * direction)
        joint = joint + direction
    return np.mean(middles, axis=0)


def test_model():
    family = Snake()
    model = family.model
    assert (model.nq, model.nv, model.nu) == (7, 7, 4)
    assert family.control_period == pytest.approx(0.05)
    assert (model.opt.density, model.opt.viscosity) == (4000.0, 0.1)
    np.testing.assert_allclose(model.body_mass[1:], LINK_MASS, rtol=1e-12)
    np.testing.assert_allclose(model.jnt_range[3:], [[-np.deg2rad(100), np.deg2rad(100)]] * 4)
    np.testing.assert_array_equal(model.actuator_ctrlrange, [[-50.0, 50.0]] * 4)


def test_link_inertia():
    # About the axis of the hinges, through the middle: a cylinder and two half-spheres, by hand.
    r, length, density = 0.1, 1.0, 1000.0
    cylinder, ball = density * np.pi * r**2 * length, density * 4 / 3 * np.pi * r**3
    # A half-ball's centre of mass is 3/8 r from its flat side.
    half_balls = ball * (2 / 5 * r**2 + (length / 2) ** 2 + 2 * (length / 2) * 3 / 8 * r)
    expected = cylinder * (r**2 / 4 + length**2 / 12) + half_balls
    np.testing.assert_allclose(Snake().model.body_inertia[1:, 1:].max(axis=1), expected, rtol=1e-6)


def test_observation():
    family = Snake()
    simulation = family.make_simulation(3)
    simulation.reset(None, 20.0 * family.draw_reset(np.random.default_rng(0), 3))
    observation, qpos, qvel = simulation.observe(), simulation.qpos, simulation.qvel
    np.testing.assert_allclose(observation[:, :2], [com_of(row) for row in qpos], atol=1e-12)
    np.testing.assert_array_equal(observation[:, 2:7], qpos[:, 2:])
    np.testing.assert_array_equal(observation[:, 9:], qvel[:, 2:])
    # Velocity of the centre of mass, by differences of its position along the motion.
    step = 1e-6
    difference = [(com_of(q + step * v) - com_of(q - step * v)) / (2 * step) for q, v in zip(qpos, qvel, strict=True)]
    np.testing.assert_allclose(observation[:, 7:9], difference, atol=1e-7)


def test_reset_noise():
    family = Snake()
    simulation = family.make_simulation(4000)
    simulation.reset(None, family.draw_reset(np.random.default_rng(0), 4000))
    np.testing.assert_allclose(simulation.qpos.std(axis=0), 0.01, rtol=0.1)
    np.testing.assert_allclose(simulation.qvel.std(axis=0), 0.1, rtol=0.1)


def test_real_and_batch_reward_agree_when_the_action_is_scaled():
    as_coded, scaled = Snake(), Snake(scale_action_in_model_reward=True)
    rng = np.random.default_rng(0)
    simulation = scaled.make_simulation(10)
    simulation.reset(None, scaled.draw_reset(rng, 10))
    for _ in range(5):
        before, action = simulation.observe(), rng.normal(size=(10, 4))
        outcome = simulation.step(action, np.zeros((10, 0)))
        after = simulation.observe()
        np.testing.assert_allclose(scaled.reward(before, action, after), outcome.reward, rtol=1e-10)
        np.testing.assert_allclose(
            outcome.reward, after[:, 7] - 0.005 * (np.clip(action, -1, 1) ** 2).sum(axis=1), rtol=1e-10
        )
        np.testing.assert_allclose(
            as_coded.reward(before, action, after), after[:, 7] - 0.005 * (action**2).sum(axis=1) / 2500, rtol=1e-10
        )
        assert not outcome.terminated.any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_batch_reward_is_clipped(dtype):
    following = np.zeros((3, 14), dtype)
    following[:, 7] = [5000.0, -np.inf, np.nan]
    reward = Snake().reward(tf.zeros_like(following), tf.zeros((3, 4), dtype), tf.constant(following))
    np.testing.assert_array_equal(reward, np.array([1000.0, -1000.0, np.nan], dtype))


def test_the_medium_stops_it():
    simulation = Snake().make_simulation(1)
    numbers = np.zeros((1, 14))
    numbers[0, 8] = 10.0  # 1 m/s sideways
    simulation.reset(None, numbers)
    assert simulation.observe()[0, 8] == pytest.approx(1.0)
    for _ in range(20):
        simulation.step(np.zeros((1, 4)), np.zeros((1, 0)))
    assert abs(simulation.observe()[0, 8]) < 0.5
