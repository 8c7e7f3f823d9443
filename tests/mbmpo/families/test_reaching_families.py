"""The PR2-like arm and the planar reachers (MB-MPO specification, sections 7.2 and 7.4)."""

import itertools

import mujoco
import numpy as np
import pytest
import tensorflow as tf

from mbmpo.families import PR2Reach, Reacher, Reacher5DoF
from metarl.experiment.errors import UserError


def no_tasks(count):
    return np.zeros((count, 0))


def transitions(family, count=20, steps=6):
    """Observations before and after, actions within the range, real outcomes, of random steps."""
    rng = np.random.default_rng(0)
    simulation = family.make_simulation(count)
    simulation.reset(None, family.draw_reset(rng, count))
    for _ in range(steps):
        before, action = simulation.observe(), rng.uniform(-1.0, 1.0, (count, family.action_dim))
        outcome = simulation.step(action, no_tasks(count))
        yield before, action, simulation.observe(), outcome


def state_of(family, numbers):
    simulation = family.make_simulation(len(numbers))
    simulation.reset(None, numbers)
    return simulation


class TestPR2:
    def test_model(self):
        family = PR2Reach()
        model = family.model
        assert (model.nq, model.nv, model.nu) == (10, 10, 7)
        assert family.control_period == pytest.approx(0.05)
        np.testing.assert_array_equal(model.opt.gravity, 0.0)
        np.testing.assert_array_equal(model.actuator_ctrlrange, [[-3.0, 3.0]] * 7)
        names = [model.joint(i).name for i in range(10)]
        assert names[:2] == ["r_shoulder_pan_joint", "r_shoulder_lift_joint"]
        assert names[7:] == ["goal_x", "goal_y", "goal_z"]
        # Upper arm 0.4 m, forearm 0.321 m.
        np.testing.assert_allclose(model.body("r_elbow_flex_link").pos, [0.4, 0, 0])
        np.testing.assert_allclose(model.body("r_wrist_flex_link").pos, [0.321, 0, 0])
        np.testing.assert_array_equal(model.dof_damping[:7], [1.0, 1.0, 0.1, 0.1, 0.1, 0.1, 0.1])
        with pytest.raises(KeyError):
            model.body("object")
        # A capsule of radius 0.06 and length 0.4 and density 300.
        volume = np.pi * 0.06**2 * 0.4 + 4 / 3 * np.pi * 0.06**3
        assert model.body("r_upper_arm_link").mass[0] == pytest.approx(300 * volume, rel=1e-9)

    def test_observation_of_the_stretched_arm(self):
        # Shoulder (-0.05, -0.188, 0.790675); 0.1 + 0.4 + 0.321 + 0.1 m forward is the tip.
        goal = np.array([0.5, -0.5, 0.8])
        numbers = np.concatenate([np.zeros(14), goal])[None]
        observation = state_of(PR2Reach(), numbers).observe()[0]
        np.testing.assert_allclose(observation[:14], 0.0)
        np.testing.assert_allclose(observation[14:], goal - [0.871, -0.188, 0.790675], atol=1e-12)

    def test_observation_after_steps_is_fresh(self):
        family = PR2Reach()
        simulation = state_of(family, family.draw_reset(np.random.default_rng(0), 1))
        goal = simulation.qpos[0, 7:].copy()
        for _ in range(10):
            simulation.step(np.ones((1, 7)), no_tasks(1))
        data = mujoco.MjData(family.model)
        data.qpos[:] = simulation.qpos[0]
        mujoco.mj_kinematics(family.model, data)
        np.testing.assert_allclose(simulation.observe()[0, 14:], goal - data.site("tip").xpos, atol=1e-12)
        np.testing.assert_array_equal(simulation.qpos[0, 7:], goal)

    def test_resets(self):
        family = PR2Reach()
        simulation = state_of(family, family.draw_reset(np.random.default_rng(0), 4000))
        goals = simulation.qpos[:, 7:]
        low, high = np.array([0.4, -0.75, 0.6]), np.array([0.6, -0.25, 1.0])
        assert (goals >= low).all()
        assert (goals <= high).all()
        np.testing.assert_allclose(goals.mean(axis=0), (low + high) / 2, atol=0.01)
        np.testing.assert_allclose(goals.std(axis=0), (high - low) / np.sqrt(12), rtol=0.05)
        np.testing.assert_allclose(simulation.qpos[:, :7].std(axis=0), 0.01, rtol=0.1)
        np.testing.assert_allclose(simulation.qvel[:, :7].std(axis=0), 0.1, rtol=0.1)
        np.testing.assert_array_equal(simulation.qvel[:, 7:], 0.0)
        # Every goal can be reached: the arm is 0.821 m long from the shoulder's lift joint on.
        assert np.linalg.norm(goals - [0.05, -0.188, 0.790675], axis=1).max() < 0.821

    def test_real_reward(self):
        for before, action, after, outcome in transitions(PR2Reach()):
            expected = -(before[:, 14:] ** 2).sum(axis=1) - 0.005 * (action**2).sum(axis=1)
            np.testing.assert_allclose(outcome.reward, expected, rtol=1e-12)
            np.testing.assert_allclose(outcome.info["distance"], np.linalg.norm(after[:, 14:], axis=1), rtol=1e-12)
            assert not outcome.terminated.any()

    @pytest.mark.parametrize(("dtype", "rtol"), [(np.float64, 1e-12), (np.float32, 1e-5)])
    def test_batch_reward(self, dtype, rtol):
        following = np.zeros((2, 17), dtype)
        following[:, 14:] = [[0.1, 0.2, -0.2], [0.0, 0.0, 0.0]]
        action = np.array([[3.0] * 7, [0.6] * 7], dtype)
        # 0.01 + 0.04 + 0.04 = 0.09; as coded 7 (3/3)² and 7 (0.6/3)², scaled 7 · 1 and 7 · 0.36.
        as_coded = PR2Reach().reward(np.zeros_like(following), action, following)
        np.testing.assert_allclose(as_coded, [-0.09 - 0.035, -0.035 * 0.04], rtol=rtol)
        scaled = PR2Reach(scale_action_in_model_reward=True).reward(np.zeros_like(following), action, following)
        np.testing.assert_allclose(scaled, [-0.09 - 0.035, -0.035 * 0.36], rtol=rtol)

    def test_scaled_batch_reward_is_the_next_steps_real_one(self):
        # Real distances are those before the step, imagined ones those after it.
        family = PR2Reach(scale_action_in_model_reward=True)
        steps = list(transitions(family))
        for (before, action, after, _), (_, following_action, _, following) in itertools.pairwise(steps):
            distance = family.reward(before, action, after) + 0.005 * (action**2).sum(axis=1)
            real = following.reward + 0.005 * (following_action**2).sum(axis=1)
            np.testing.assert_allclose(distance, real, rtol=1e-10)


class TestReacher:
    def test_model(self):
        family = Reacher()
        assert family.control_period == pytest.approx(0.01)
        assert (family.model.nq, family.model.nu) == (4, 2)
        np.testing.assert_array_equal(family.model.actuator_gear[:, 0], 200.0)

    def test_observation_by_hand(self):
        # Noise numbers that turn the first joint by 0.3 and the second by -0.5 rad.
        numbers = np.array([[30.0, -50.0, 1.0, -2.0, 0.15, -0.05]])
        observation = state_of(Reacher(), numbers).observe()[0]
        joints = np.array([0.3, -0.5])
        tip = 0.1 * np.array([np.cos(0.3), np.sin(0.3)]) + 0.11 * np.array([np.cos(-0.2), np.sin(-0.2)])
        offset = [*(tip - [0.15, -0.05]), 0.0]
        expected = np.concatenate([np.cos(joints), np.sin(joints), [0.15, -0.05], [0.1, -0.2], offset])
        np.testing.assert_allclose(observation, expected, atol=1e-9)

    def test_resets(self):
        family = Reacher()
        simulation = state_of(family, family.draw_reset(np.random.default_rng(0), 4000))
        targets = simulation.qpos[:, 2:]
        assert np.abs(targets).max() <= 0.2
        np.testing.assert_allclose(targets.std(axis=0), 0.4 / np.sqrt(12), rtol=0.05)
        np.testing.assert_allclose(simulation.qpos[:, :2].std(axis=0), 0.01, rtol=0.1)
        np.testing.assert_allclose(simulation.qvel[:, :2].std(axis=0), 0.1, rtol=0.1)
        np.testing.assert_array_equal(simulation.qvel[:, 2:], 0.0)

    def test_rewards(self):
        family = Reacher()
        for before, action, after, outcome in transitions(family):
            cost = (action**2).sum(axis=1)
            np.testing.assert_allclose(outcome.reward, -np.linalg.norm(before[:, 8:], axis=1) - cost, rtol=1e-10)
            batch = family.reward(before, action, after)
            np.testing.assert_allclose(batch, -np.linalg.norm(after[:, 8:], axis=1) - cost, rtol=1e-10)
            single = family.reward(*(tf.constant(x, tf.float32) for x in (before, action, after)))
            np.testing.assert_allclose(single, batch, rtol=1e-5)

    def test_batch_reward_is_clipped(self):
        following = np.zeros((1, 11))
        assert Reacher().reward(following, np.full((1, 2), 40.0), following).numpy() == -1000.0
        assert np.isnan(Reacher().reward(following, np.full((1, 2), np.nan), following).numpy())

    def test_target_stays(self):
        family = Reacher()
        simulation = state_of(family, family.draw_reset(np.random.default_rng(0), 3))
        target = simulation.qpos[:, 2:].copy()
        for _ in range(20):
            simulation.step(np.ones((3, 2)), no_tasks(3))
        np.testing.assert_allclose(simulation.qpos[:, 2:], target, atol=1e-12)


class TestReacher5DoF:
    def test_model(self):
        family = Reacher5DoF()
        model = family.model
        assert family.control_period == pytest.approx(0.01)
        np.testing.assert_array_equal(model.dof_armature[:5], 1.0)
        np.testing.assert_array_equal(model.dof_damping[:5], 1.0)
        np.testing.assert_array_equal(model.actuator_gear[:, 0], 200.0)
        np.testing.assert_array_equal(model.jnt_range[:5], [[-3.0, 3.0]] * 5)
        # A capsule of length 0.1 m and radius 0.01 m, with MuJoCo's density of 1000.
        volume = np.pi * 0.01**2 * 0.1 + 4 / 3 * np.pi * 0.01**3
        np.testing.assert_allclose(model.body_mass[1:6], 1000 * volume, rtol=1e-9)

    def test_observation_by_hand(self):
        joints = np.array([0.3, -0.5, 1.0, 0.2, -0.7])
        velocities = np.array([1e-3, 2e-3, -3e-3, 4e-3, -5e-3])
        numbers = np.concatenate([joints, velocities, [0.1, 0.05]])[None]
        observation = state_of(Reacher5DoF(), numbers).observe()[0]
        angles = np.cumsum(joints)
        lengths = np.array([0.1, 0.1, 0.1, 0.1, 0.11])
        tip = np.array([(lengths * np.cos(angles)).sum(), (lengths * np.sin(angles)).sum()])
        expected = np.concatenate([np.cos(joints), np.sin(joints), [0.1, 0.05], velocities, tip - [0.1, 0.05]])
        np.testing.assert_allclose(observation, expected, atol=1e-12)

    def test_resets(self):
        family = Reacher5DoF()
        simulation = state_of(family, family.draw_reset(np.random.default_rng(0), 2000))
        joints, targets = simulation.qpos[:, :5], simulation.qpos[:, 5:]
        assert np.abs(joints).max() <= 1.5
        np.testing.assert_allclose(joints.std(axis=0), 3 / np.sqrt(12), rtol=0.05)
        assert np.abs(simulation.qvel[:, :5]).max() <= 0.005
        np.testing.assert_array_equal(simulation.qvel[:, 5:], 0.0)
        np.testing.assert_array_equal(targets, [[0.25, 0.15]] * 2000)

    def test_random_targets_lie_in_a_square_without_its_middle(self):
        numbers = Reacher5DoF(random_target=True).draw_reset(np.random.default_rng(0), 4000)
        targets = numbers[:, 10:]
        radius = np.linalg.norm(targets, axis=1)
        assert np.abs(targets).max() <= 0.15
        assert 0.03 < radius.min() < 0.035
        assert radius.max() > 0.19  # into the corners
        np.testing.assert_allclose(targets.mean(axis=0), 0.0, atol=0.01)

    def test_rewards(self):
        family = Reacher5DoF()
        for before, action, after, outcome in transitions(family):
            cost = 0.01 * (action**2).sum(axis=1)
            np.testing.assert_allclose(outcome.reward, -np.linalg.norm(before[:, 17:], axis=1) - cost, rtol=1e-9)
            batch = family.reward(before, action, after)
            np.testing.assert_allclose(batch, -np.linalg.norm(after[:, 17:], axis=1) - cost, rtol=1e-9)

    def test_lengths_as_tasks(self):
        family = Reacher5DoF(length_log_scale_limit=1.0)
        rng = np.random.default_rng(0)
        tasks = np.array([family.draw_task(rng) for _ in range(500)])
        assert ((tasks != 1.0).sum(axis=1) == 2).all()
        assert tasks.min() >= 0.5
        assert tasks.max() <= 2.0
        assert (tasks != 1.0).any(axis=0).all()
        simulation = family.make_simulation(2)
        simulation.assign_tasks(np.array([[1.0, 2.0, 1.0, 1.0, 0.5], [1.0] * 5]))
        simulation.reset(None, np.concatenate([np.zeros((2, 10)), np.zeros((2, 2))], axis=1))
        # 0.1 + 0.2 + 0.1 + 0.1 + 0.05 + 0.01 m stretched out.
        np.testing.assert_allclose(simulation.observe()[:, 17], [0.56, 0.51], atol=1e-12)
        simulation.step(np.ones((2, 5)), no_tasks(2))
        assert simulation.qvel[0, 0] != simulation.qvel[1, 0]

    def test_bad_options(self):
        with pytest.raises(UserError, match=r"Reacher5DoF\.random_target must be True or False"):
            Reacher5DoF(random_target="yes")
        with pytest.raises(UserError, match=r"Reacher5DoF\.length_log_scale_limit must be at least 0"):
            Reacher5DoF(length_log_scale_limit=-1.0)
