"""Families whose tasks are directions, velocities or goals, for MAML on real tasks (specification, section 7.3).

There is no batch reward: they cannot be imagined. Bodies, physics steps and resets are those of the benchmark
environments. "com" is the centre of mass of the whole animal. Shapes: `n` copies; a task has G numbers, as they were
drawn.
"""

import abc
from typing import Any

import gin
import mujoco
import numpy as np

from mbmpo.families.ant import HEALTHY_Z, Ant
from mbmpo.families.base import MujocoFamilySimulation, MujocoTaskFamily
from mbmpo.families.sensors import add_com_sensors, add_contact_force_trigger
from metarl.simulation.task_family import Scene, StepOutcome


class _GoalFamily(MujocoTaskFamily):
    """A family with com sensors on `torso` whose task is drawn uniformly from a box.

    Attributes:
        task_low, task_high: ends of the uniform distribution of every number of the task.
        torso: name of the root body.
    """

    task_dim = 1
    task_key = "goal"
    fields: tuple[str, ...] = ("sensordata",)
    torso = "torso"
    task_low: float
    task_high: float

    def __init__(self) -> None:
        """There are no options: a task is a goal, so physical parameters cannot be drawn too."""
        super().__init__()

    def edit(self, spec: mujoco.MjSpec) -> None:
        """Adds the com sensors."""
        add_com_sensors(spec, self.torso)

    def draw_task(self, rng: np.random.Generator | np.random.RandomState) -> np.ndarray:
        """Returns one task, [G] float64."""
        return rng.uniform(self.task_low, self.task_high, self.task_dim)

    @staticmethod
    def com(simulation: MujocoFamilySimulation) -> np.ndarray:
        """Centre of mass, [n, 3], metres."""
        return simulation.fields["sensordata"][:, :3]

    @staticmethod
    def com_velocity(simulation: MujocoFamilySimulation) -> np.ndarray:
        """Velocity of the centre of mass along x, [n], m/s."""
        return simulation.fields["sensordata"][:, 3]

    def direction(self, tasks: np.ndarray) -> np.ndarray:
        """-1 for tasks in the lower half of the distribution, 1 for the others, [n]."""
        return np.where(tasks[:, 0] < 0.5 * (self.task_low + self.task_high), -1.0, 1.0)

    def direction_scene(self, task: np.ndarray) -> Scene:
        """The direction in words: x grows to the right of a picture."""
        return Scene(caption="run forwards" if self.direction(task[None])[0] > 0 else "run backwards")

    @staticmethod
    def velocity_scene(task: np.ndarray) -> Scene:
        """The velocity in words."""
        return Scene(caption=f"{task[0]:.2f} m/s wanted")


class _HalfCheetah(_GoalFamily):
    """Observation (O = 20): qpos without x (8), qvel (9), com (3); actions A = 6. There is no early end."""

    observation_dim = 20
    action_dim = 6
    model_file = "half_cheetah.xml"
    task_low, task_high = 0.0, 2.0

    def observation(self, qpos: np.ndarray, qvel: np.ndarray, fields: dict[str, np.ndarray]) -> np.ndarray:
        """Returns [n, 20] float64."""
        return np.concatenate([qpos[:, 1:], qvel, fields["sensordata"][:, :3]], axis=1)

    def settle(
        self, simulation: MujocoFamilySimulation, before: Any, controls: np.ndarray, tasks: np.ndarray
    ) -> StepOutcome:
        """Returns what the velocity earns minus 0.05 ‖clip(a)‖²."""
        run = self.run_reward(self.com_velocity(simulation), tasks)
        return _never_ending(run, -0.05 * np.vecdot(controls, controls))

    @abc.abstractmethod
    def run_reward(self, velocity: np.ndarray, tasks: np.ndarray) -> np.ndarray:
        """Returns what com velocities [n] earn in tasks [n, 1], [n]."""


@gin.configurable(module="mbmpo")
class HalfCheetahDirection(_HalfCheetah):
    """Run forwards or backwards: reward d · v - 0.05 ‖clip(a)‖², v the com's velocity along x after the step.

    The task is g ~ U(0, 2); d is -1 below 1, else 1.
    """

    name = "half_cheetah_direction"

    def scene(self, task: np.ndarray) -> Scene:
        """See `direction_scene`."""
        return self.direction_scene(task)

    def run_reward(self, velocity: np.ndarray, tasks: np.ndarray) -> np.ndarray:
        """Returns d · v."""
        return self.direction(tasks) * velocity


@gin.configurable(module="mbmpo")
class HalfCheetahVelocity(_HalfCheetah):
    """Run at a velocity g ~ U(0, 2) m/s: reward -|v - g| - 0.05 ‖clip(a)‖²."""

    name = "half_cheetah_velocity"

    def scene(self, task: np.ndarray) -> Scene:
        """See `velocity_scene`."""
        return self.velocity_scene(task)

    def run_reward(self, velocity: np.ndarray, tasks: np.ndarray) -> np.ndarray:
        """Returns -|v - g|."""
        return -np.abs(velocity - tasks[:, 0])


@gin.configurable(module="mbmpo")
class SwimmerVelocity(_GoalFamily):
    """Swim at a velocity g ~ U(0.1, 0.2) m/s: reward -1.5 |v - g| - 0.005 ‖clip(a)‖², v the com's along x.

    Observation (O = 13): qpos (5), qvel (5), com (3); actions A = 2. There is no early end.
    """

    name = "swimmer_velocity"
    observation_dim = 13
    action_dim = 2
    model_file = "swimmer.xml"
    task_low, task_high = 0.1, 0.2

    def scene(self, task: np.ndarray) -> Scene:
        """See `velocity_scene`."""
        return self.velocity_scene(task)

    def observation(self, qpos: np.ndarray, qvel: np.ndarray, fields: dict[str, np.ndarray]) -> np.ndarray:
        """Returns [n, 13] float64."""
        return np.concatenate([qpos, qvel, fields["sensordata"][:, :3]], axis=1)

    def settle(
        self, simulation: MujocoFamilySimulation, before: Any, controls: np.ndarray, tasks: np.ndarray
    ) -> StepOutcome:
        """Returns the reward of the class."""
        run = -1.5 * np.abs(self.com_velocity(simulation) - tasks[:, 0])
        return _never_ending(run, -0.005 * np.vecdot(controls, controls))


class _Ant(_GoalFamily):
    """An ant; an episode ends when the torso's height leaves [0.2, 1.0] m. A diverged copy ends with reward 0.

    Observation (O = 125): qpos (15), qvel (14), contact forces clipped to ±1 (world and 13 bodies, 14 × 6), the torso's
    rotation matrix (9, row by row), com (3); actions A = 8. The reward is that of a subclass for moving
    - 0.005 ‖clip(a)‖² - 0.0005 ‖clip(contact forces, ±1)‖² + 0.05.
    """

    observation_dim = 125
    action_dim = 8
    ends_early = True
    model_file = "ant.xml"
    frame_skip = 2
    initial_qpos = Ant.initial_qpos
    fields = ("sensordata", "cfrc_ext", "xmat")
    stage = mujoco.mjtStage.mjSTAGE_ACC
    info_keys = ("reward_run", "reward_ctrl", "reward_contact")

    def edit(self, spec: mujoco.MjSpec) -> None:
        """Adds the com sensors and lets the engine compute contact forces."""
        super().edit(spec)
        add_contact_force_trigger(spec, self.torso)

    def observation(self, qpos: np.ndarray, qvel: np.ndarray, fields: dict[str, np.ndarray]) -> np.ndarray:
        """Returns [n, 125] float64; body 1 is the torso."""
        forces = np.clip(fields["cfrc_ext"], -1.0, 1.0).reshape(len(qpos), -1)
        rotation = fields["xmat"][:, 1].reshape(len(qpos), 9)
        return np.concatenate([qpos, qvel, forces, rotation, fields["sensordata"][:, :3]], axis=1)

    def settle(
        self, simulation: MujocoFamilySimulation, before: Any, controls: np.ndarray, tasks: np.ndarray
    ) -> StepOutcome:
        """Returns reward and end of a step."""
        run = self.run_reward(simulation, tasks)
        control = -0.005 * np.vecdot(controls, controls)
        contact = -0.0005 * np.square(np.clip(simulation.fields["cfrc_ext"], -1.0, 1.0)).sum(axis=(1, 2))
        reward = run + control + contact + 0.05
        reward[simulation.diverged] = 0.0
        height = simulation.qpos[:, 2]
        # Written so that a NaN height has fallen.
        fallen = ~((height >= HEALTHY_Z[0]) & (height <= HEALTHY_Z[1])) | simulation.diverged
        return StepOutcome(reward, fallen, {"reward_run": run, "reward_ctrl": control, "reward_contact": contact})

    @abc.abstractmethod
    def run_reward(self, simulation: MujocoFamilySimulation, tasks: np.ndarray) -> np.ndarray:
        """Returns what the new state earns in tasks [n, G], [n]."""


@gin.configurable(module="mbmpo")
class AntDirection(_Ant):
    """An ant that runs forwards or backwards, for d · v, v the com's velocity along x after the step.

    The task is g ~ U(0, 3); d is -1 below 1.5, else 1. For the rest see `_Ant`'s observation, costs and end: O = 125,
    A = 8, - 0.005 ‖clip(a)‖² - 0.0005 ‖clip(contact forces, ±1)‖² + 0.05, height in [0.2, 1.0].
    """

    name = "ant_direction"
    task_low, task_high = 0.0, 3.0

    def scene(self, task: np.ndarray) -> Scene:
        """See `direction_scene`."""
        return self.direction_scene(task)

    def run_reward(self, simulation: MujocoFamilySimulation, tasks: np.ndarray) -> np.ndarray:
        """Returns d · v."""
        return self.direction(tasks) * self.com_velocity(simulation)


@gin.configurable(module="mbmpo")
class AntGoal(_Ant):
    """An ant that runs to a goal ~ U(-3, 3)², for exp(-‖com_xy - goal‖₁) per step.

    For the rest see `_Ant`'s observation, costs and end: O = 125, A = 8,
    - 0.005 ‖clip(a)‖² - 0.0005 ‖clip(contact forces, ±1)‖² + 0.05, height in [0.2, 1.0].
    """

    name = "ant_goal"
    task_dim = 2
    task_low, task_high = -3.0, 3.0

    def scene(self, task: np.ndarray) -> Scene:
        """The goal."""
        return Scene(task, f"goal {task[0]:.2f}, {task[1]:.2f}")

    def run_reward(self, simulation: MujocoFamilySimulation, tasks: np.ndarray) -> np.ndarray:
        """Returns exp(-‖com_xy - goal‖₁)."""
        return np.exp(-np.abs(self.com(simulation)[:, :2] - tasks).sum(axis=1))


def _never_ending(run: np.ndarray, control: np.ndarray) -> StepOutcome:
    return StepOutcome(run + control, np.zeros(len(run), bool), {"reward_run": run, "reward_ctrl": control})
