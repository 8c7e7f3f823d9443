"""Directions, velocities and goals as tasks (MB-MPO specification, section 7.3)."""

import mujoco
import numpy as np
import pytest

from mbmpo.families import (
    AntDirection,
    AntGoal,
    HalfCheetahDirection,
    HalfCheetahVelocity,
    SwimmerVelocity,
)

# Class -> ends of the distribution of a task's numbers, physics steps and seconds of a control step.
CASES = {
    HalfCheetahDirection: (0.0, 2.0, 0.01),
    HalfCheetahVelocity: (0.0, 2.0, 0.01),
    SwimmerVelocity: (0.1, 0.2, 0.01),
    AntDirection: (0.0, 3.0, 0.02),
    AntGoal: (-3.0, 3.0, 0.02),
}


def after_some_steps(family, tasks, steps=25):
    """The simulation, the last actions and outcome after random steps."""
    rng = np.random.default_rng(0)
    count = len(tasks)
    simulation = family.make_simulation(count)
    simulation.reset(None, family.draw_reset(rng, count))
    for _ in range(steps):
        actions = rng.uniform(-1.5, 1.5, (count, family.action_dim))
        outcome = simulation.step(actions, tasks)
    return simulation, np.clip(actions, -1.0, 1.0), outcome


def recomputed(family, simulation, copy, action):
    """MuJoCo's data of one copy's state, with centre of mass, its velocity and contact forces, computed alone."""
    data = mujoco.MjData(family.model)
    data.qpos[:], data.qvel[:], data.ctrl[:] = simulation.qpos[copy], simulation.qvel[copy], action
    mujoco.mj_forward(family.model, data)
    mujoco.mj_subtreeVel(family.model, data)
    mujoco.mj_rnePostConstraint(family.model, data)
    masses, velocities = family.model.body_mass[1:], []
    for body in range(1, family.model.nbody):
        velocity = np.zeros(6)
        mujoco.mj_objectVelocity(family.model, data, mujoco.mjtObj.mjOBJ_BODY, body, velocity, 0)
        velocities.append(velocity[3:])
    com = (masses[:, None] * data.xipos[1:]).sum(axis=0) / masses.sum()
    return data, com, (masses[:, None] * np.array(velocities)).sum(axis=0) / masses.sum()


@pytest.mark.parametrize("family_class", CASES)
def test_tasks_are_uniform(family_class):
    low, high, control_period = CASES[family_class]
    family, rng = family_class(), np.random.default_rng(0)
    tasks = np.array([family.draw_task(rng) for _ in range(3000)])
    assert low <= tasks.min() < low + 0.01 * (high - low)
    assert high - 0.01 * (high - low) < tasks.max() <= high
    np.testing.assert_allclose(tasks.mean(axis=0), (low + high) / 2, atol=0.03 * (high - low))
    assert family.control_period == pytest.approx(control_period)


def test_half_cheetah_observation_and_rewards():
    tasks = np.array([[0.3], [0.99], [1.01], [1.7]])
    direction, velocity = HalfCheetahDirection(), HalfCheetahVelocity()
    simulation, actions, outcome = after_some_steps(direction, tasks)
    _, _, velocity_outcome = after_some_steps(velocity, tasks)
    cost = 0.05 * (actions**2).sum(axis=1)
    for copy, sign in enumerate([-1.0, -1.0, 1.0, 1.0]):
        data, com, com_velocity = recomputed(direction, simulation, copy, actions[copy])
        expected = np.concatenate([data.qpos[1:], data.qvel, com])
        np.testing.assert_allclose(simulation.observe()[copy], expected, atol=1e-9)
        assert outcome.reward[copy] == pytest.approx(sign * com_velocity[0] - cost[copy], rel=1e-8)
        missed = abs(com_velocity[0] - tasks[copy, 0])
        assert velocity_outcome.reward[copy] == pytest.approx(-missed - cost[copy], rel=1e-8)
    assert not outcome.terminated.any()


def test_swimmer_observation_and_reward():
    tasks = np.array([[0.1], [0.2]])
    family = SwimmerVelocity()
    simulation, actions, outcome = after_some_steps(family, tasks)
    for copy in range(2):
        data, com, com_velocity = recomputed(family, simulation, copy, actions[copy])
        np.testing.assert_allclose(simulation.observe()[copy], np.concatenate([data.qpos, data.qvel, com]), atol=1e-9)
        expected = -1.5 * abs(com_velocity[0] - tasks[copy, 0]) - 0.005 * (actions[copy] ** 2).sum()
        assert outcome.reward[copy] == pytest.approx(expected, rel=1e-8)


def ant_costs(forces, actions):
    return 0.05 - 0.005 * (actions**2).sum() - 0.0005 * (np.clip(forces, -1, 1) ** 2).sum()


@pytest.mark.parametrize("family_class", [AntDirection, AntGoal])
def test_ant_observation_and_rewards(family_class):
    family = family_class()
    tasks = np.array([[1.4, 0.5], [1.6, -2.0], [0.0, 0.0]])[:, : family.task_dim]
    simulation, actions, outcome = after_some_steps(family, tasks, 68)
    touching = 0.0
    for copy, sign in enumerate([-1.0, 1.0, -1.0]):
        data, com, com_velocity = recomputed(family, simulation, copy, actions[copy])
        forces = np.clip(data.cfrc_ext, -1, 1)
        rotation = np.zeros(9)
        mujoco.mju_quat2Mat(rotation, data.qpos[3:7] / np.linalg.norm(data.qpos[3:7]))
        expected = np.concatenate([data.qpos, data.qvel, forces.ravel(), rotation, com])
        np.testing.assert_allclose(simulation.observe()[copy], expected, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(simulation.observe()[copy, 29 + 84 :], expected[29 + 84 :], atol=1e-9)
        to_goal = np.abs(com[:2] - tasks[copy]).sum()
        run = sign * com_velocity[0] if family_class is AntDirection else np.exp(-to_goal)
        assert outcome.reward[copy] == pytest.approx(run + ant_costs(forces, actions[copy]), abs=1e-5)
        touching = max(touching, np.abs(data.cfrc_ext).max())
    assert touching > 0.1


@pytest.mark.parametrize("height", [0.15, 0.25, 0.95, 1.05])
def test_ant_ends_outside_its_heights(height):
    family = AntGoal()
    simulation = family.make_simulation(1)
    numbers = np.zeros((1, family.reset_dim))
    numbers[0, 2] = (height - 0.55) / 0.01  # noise that lifts the torso there
    simulation.reset(None, numbers)
    assert simulation.qpos[0, 2] == pytest.approx(height)
    terminated = simulation.step(np.zeros((1, 8)), np.zeros((1, 2))).terminated[0]
    assert terminated == (not 0.2 <= simulation.qpos[0, 2] <= 1.0)


def test_a_diverged_ant_ends_with_a_finite_reward():
    family = AntGoal()
    simulation = family.make_simulation(2)
    simulation.perturb_state(np.array([[0.0] * 29, [np.nan] * 29]))
    outcome = simulation.step(np.zeros((2, 8)), np.zeros((2, 2)))
    assert outcome.terminated.tolist() == [False, True]
    assert outcome.reward[1] == 0.0
