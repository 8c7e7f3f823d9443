"""The humanoid (MB-MPO specification, section 7.2)."""

import mujoco
import numpy as np
import pytest
import tensorflow as tf

from mbmpo.families import Humanoid


def falling(steps, count=8):
    """Observations before and after, actions, outcomes and the simulation, of random steps."""
    family = Humanoid()
    rng = np.random.default_rng(0)
    simulation = family.make_simulation(count)
    simulation.reset(None, family.draw_reset(rng, count))
    for _ in range(steps):
        before, action = simulation.observe(), rng.uniform(-1.5, 1.5, (count, 17))
        outcome = simulation.step(action, np.zeros((count, 0)))
        yield before, action, simulation.observe(), outcome, simulation


def test_control_period():
    assert Humanoid().control_period == pytest.approx(0.015)


def test_observation_and_forces_are_those_of_the_new_state():
    model = Humanoid().model
    data = mujoco.MjData(model)
    *_, (_, action, after, _, simulation) = falling(30)
    forces = []
    for copy in range(8):
        data.qpos[:], data.qvel[:] = simulation.qpos[copy], simulation.qvel[copy]
        data.ctrl[:] = 0.4 * np.clip(action[copy], -1.0, 1.0)
        mujoco.mj_forward(model, data)
        expected = np.concatenate([data.qpos[2:], data.qvel, data.cvel.ravel()])
        np.testing.assert_allclose(after[copy], expected, rtol=1e-9, atol=1e-9)
        mujoco.mj_rnePostConstraint(model, data)
        forces.append(data.cfrc_ext.copy())
    assert np.abs(forces).max() > 1.0  # feet on the floor
    np.testing.assert_allclose(
        np.clip(simulation.fields["cfrc_ext"], -1, 1), np.clip(forces, -1, 1), rtol=1e-3, atol=1e-3
    )


def test_real_and_batch_reward():
    as_coded, scaled = Humanoid(), Humanoid(scale_action_in_model_reward=True)
    impacts = 0.0
    for before, action, after, outcome, simulation in falling(25):
        velocity = after[:, 22:25]
        np.testing.assert_array_equal(velocity, simulation.qvel[:, :3])
        common = velocity[:, 0] + 0.2 - 0.005 * (velocity[:, 1:] ** 2).sum(axis=1)
        impact = -5e-6 * (np.clip(simulation.fields["cfrc_ext"], -1, 1) ** 2).sum(axis=(1, 2))
        control = (np.clip(action, -1, 1) ** 2).sum(axis=1)
        np.testing.assert_allclose(outcome.reward, common - 5e-4 * control + impact, rtol=1e-9)
        # Imagined and real differ by the impact cost alone once the action is scaled.
        np.testing.assert_allclose(scaled.reward(before, action, after) + impact, outcome.reward, rtol=1e-9)
        coded = common - 5e-4 * (action**2).sum(axis=1) / 0.16
        np.testing.assert_allclose(as_coded.reward(before, action, after), coded, rtol=1e-9)
        single = as_coded.reward(*(tf.constant(x, tf.float32) for x in (before, action, after)))
        np.testing.assert_allclose(single, coded, rtol=1e-4, atol=1e-5)
        impacts = min(impacts, impact.min())
    assert impacts < 0


def test_it_ends_where_it_has_fallen():
    family, seen = Humanoid(), set()
    for _, _, after, outcome, simulation in falling(60):
        height = simulation.qpos[:, 2]
        np.testing.assert_array_equal(outcome.terminated, (height < 0.8) | (height > 2.0))
        np.testing.assert_array_equal(family.termination(tf.constant(after)), outcome.terminated)
        seen |= set(outcome.terminated.tolist())
    assert seen == {False, True}


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_imagined_end(dtype):
    heights = [0.79, 0.81, 1.99, 2.01, float("nan"), float("inf"), 0.5]
    observation = tf.concat([tf.constant(heights, dtype)[:, None], tf.zeros((7, 128), dtype)], axis=1)
    ended = Humanoid().termination(observation).numpy().tolist()
    assert ended == [True, False, False, True, True, True, True]


def test_a_diverged_copy_ends_with_a_finite_reward():
    family = Humanoid()
    simulation = family.make_simulation(2)
    simulation.perturb_state(np.array([[0.0] * 47, [np.nan] * 47]))
    outcome = simulation.step(np.zeros((2, 17)), np.zeros((2, 0)))
    assert outcome.terminated.tolist() == [False, True]
    assert outcome.reward[1] == 0.0
