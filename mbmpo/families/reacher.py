"""The planar arms with two and five joints (specification, sections 7.2 and 7.4)."""

import functools
from typing import Any

import gin
import mujoco
import numpy as np
import tensorflow as tf

from mbmpo.families.base import (
    RESET_QPOS_STD,
    RESET_QVEL_STD,
    REWARD_LIMIT,
    MujocoFamily,
    MujocoFamilySimulation,
    clip_reward,
)
from mbmpo.families.control_cost import squared_norm
from metarl.experiment import checks
from metarl.simulation.task_family import StepOutcome


class _Arm(MujocoFamily):
    """An arm of `action_dim` joints and a target that two slides hold, the last two numbers of qpos."""

    memory = 1 << 16
    fields = ("xpos",)
    stage = mujoco.mjtStage.mjSTAGE_POS
    info_keys = ("distance", "reward_ctrl")

    @property
    def reset_dim(self) -> int:  # type: ignore[override]
        """One number per joint position and velocity, then the target."""
        return 2 * self.action_dim + 2

    @functools.cached_property
    def _bodies(self) -> tuple[int, int]:
        return self.model.body("fingertip").id, self.model.body("target").id

    def offset(self, fields: dict[str, np.ndarray]) -> np.ndarray:
        """Returns fingertip minus target, [n, 3] float64, metres."""
        fingertip, target = self._bodies
        return fields["xpos"][:, fingertip] - fields["xpos"][:, target]

    def remember(self, simulation: MujocoFamilySimulation) -> np.ndarray:
        """Returns the distance of fingertip and target, [n]."""
        offset = self.offset(simulation.fields)
        return np.sqrt(np.vecdot(offset, offset))


@gin.configurable(module="mbmpo")
class Reacher(_Arm):
    """Gymnasium's arm with two links, one physics step of 0.01 s per control step; there is no early end.

    Observation (O = 11): cos and sin of both joint angles, target x, y (m), joint velocities (rad/s), fingertip minus
    target (3, m). Actions (A = 2), motors ±1.

    Reward: -‖fingertip - target‖ - ‖a‖² within ±1000; real: the distance before the step and the clipped action,
    imagined: the next observation's distance (the original read the current one by mistake; O-16) and the action as it
    is. A reset's numbers are the standard normal noise of joint positions and velocities, then the target, U(±0.2)².
    """

    name = "reacher"
    observation_dim = 11
    action_dim = 2
    model_file = "reacher.xml"

    def draw_reset(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Returns [count, 6]: standard normal numbers (4), target (2, m)."""
        numbers = np.empty((count, 6))
        for row in numbers:
            rng.standard_normal(out=row[:4])
            row[4:] = rng.uniform(-0.2, 0.2, 2)
        return numbers

    def reset_state(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `MujocoTaskFamily`; the target rests."""
        target = numbers[:, 4:]
        qpos = np.concatenate([self.start_qpos[:2] + RESET_QPOS_STD * numbers[:, :2], target], axis=1)
        return qpos, np.concatenate([RESET_QVEL_STD * numbers[:, 2:4], np.zeros_like(target)], axis=1)

    def observation(self, qpos: np.ndarray, qvel: np.ndarray, fields: dict[str, np.ndarray]) -> np.ndarray:
        """Returns [n, 11] float64."""
        joints, target = qpos[:, :2], qpos[:, 2:]
        return np.concatenate([np.cos(joints), np.sin(joints), target, qvel[:, :2], self.offset(fields)], axis=1)

    def settle(
        self, simulation: MujocoFamilySimulation, before: Any, controls: np.ndarray, tasks: np.ndarray
    ) -> StepOutcome:
        """Returns minus the distance before the step and minus the control cost; `distance` is the one after."""
        control = -np.vecdot(controls, controls)
        return StepOutcome(
            clip_reward(control - before),
            np.zeros(simulation.num_copies, bool),
            {"distance": self.remember(simulation), "reward_ctrl": control},
        )

    def reward(self, observation: tf.Tensor, action: tf.Tensor, next_observation: tf.Tensor) -> tf.Tensor:
        """Batch reward -‖o'[-3:]‖ - ‖a‖² within ±1000, [...]."""
        reward = -tf.norm(next_observation[..., -3:], axis=-1) - squared_norm(action)
        return tf.clip_by_value(reward, -REWARD_LIMIT, REWARD_LIMIT)


@gin.configurable(module="mbmpo")
class Reacher5DoF(_Arm):
    """Five links of 0.1 m, motors ±1 with gear 200, one physics step of 0.01 s per control step; no early end.

    Observation (O = 19): cos (5) and sin (5) of the joint angles, target x, y (m), joint velocities (5, rad/s),
    fingertip minus target x, y (m). Actions (A = 5).

    Reward, real and imagined: -‖fingertip - target‖ after the step - 0.01 ‖a‖². (The original's batch form has another
    name and argument order, so imagination could not use it; O-16.) Joints start at U(±1.5) rad with velocities of
    standard deviation 0.1. A reset's numbers are the joint angles, the standard normal noise of their velocities, and
    the target.
    """

    name = "reacher_5dof"
    observation_dim = 19
    action_dim = 5
    model_file = "reacher_5dof.xml"
    own_model = True

    fixed_target = (0.25, 0.15)
    target_limit = 0.15
    target_min_radius = 0.03
    start_limit = 1.5

    def __init__(self, *, random_target: bool = False):
        """Checks and stores the choice.

        Args:
            random_target: draw the target at every reset from U(±0.15)² outside radius 0.03; False: it is fixed at
                (0.25, 0.15).

        Raises:
            UserError: not True or False.
        """
        self.random_target = checks.flag("Reacher5DoF.random_target", random_target)

    def draw_reset(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Returns [count, 12]: joint angles (5, rad), standard normal numbers (5), target (2, m)."""
        numbers = np.empty((count, 12))
        for row in numbers:
            row[:5] = rng.uniform(-self.start_limit, self.start_limit, 5)
            rng.standard_normal(out=row[5:10])
            row[10:] = self._draw_target(rng)
        return numbers

    def _draw_target(self, rng: np.random.Generator) -> np.ndarray:
        if not self.random_target:
            return np.array(self.fixed_target)
        while True:
            target = rng.uniform(-self.target_limit, self.target_limit, 2)
            if np.hypot(*target) > self.target_min_radius:
                return target

    @functools.cached_property
    def start_qpos(self) -> np.ndarray:
        """[7] float64: the arm stretched out, the fixed target."""
        return np.array([0.0] * 5 + list(self.fixed_target))

    def reset_state(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `MujocoTaskFamily`; the target rests."""
        target = numbers[:, 10:]
        qpos = np.concatenate([numbers[:, :5], target], axis=1)
        return qpos, np.concatenate([RESET_QVEL_STD * numbers[:, 5:10], np.zeros_like(target)], axis=1)

    def observation(self, qpos: np.ndarray, qvel: np.ndarray, fields: dict[str, np.ndarray]) -> np.ndarray:
        """Returns [n, 19] float64."""
        joints, target = qpos[:, :5], qpos[:, 5:]
        offset = self.offset(fields)[:, :2]
        return np.concatenate([np.cos(joints), np.sin(joints), target, qvel[:, :5], offset], axis=1)

    def settle(
        self, simulation: MujocoFamilySimulation, before: Any, controls: np.ndarray, tasks: np.ndarray
    ) -> StepOutcome:
        """Returns minus the distance after the step and minus the control cost."""
        distance = self.remember(simulation)
        control = -0.01 * np.vecdot(controls, controls)
        return StepOutcome(
            control - distance,
            np.zeros(simulation.num_copies, bool),
            {"distance": distance, "reward_ctrl": control},
        )

    def reward(self, observation: tf.Tensor, action: tf.Tensor, next_observation: tf.Tensor) -> tf.Tensor:
        """Batch reward -‖o'[-2:]‖ - 0.01 ‖a‖², [...]."""
        return -tf.norm(next_observation[..., -2:], axis=-1) - 0.01 * squared_norm(action)
