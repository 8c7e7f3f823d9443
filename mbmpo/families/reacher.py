"""The planar arms with two and five joints (specification, sections 7.2 and 7.4)."""

import functools
from typing import Any

import gin
import mujoco
import numpy as np
import tensorflow as tf
from mujoco import batch as mujoco_batch

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

LINKS = 5
LINK_LENGTH = 0.1
"""Of `Reacher5DoF`, metres."""


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

    Reward: -‖fingertip - target‖ - 0.01 ‖a‖²; real: the distance before the step and the clipped action, imagined: the
    next observation's distance and the action as it is. (The original's batch form has another name and argument order,
    so imagination could not use it; O-16.) Joints start at U(±1.5) rad with velocities U(±0.005) rad/s; the target
    rests. A reset's numbers are joint angles, joint velocities and target.

    With `length_log_scale_limit` a task is the five factors of the links' lengths (G = 5): 2^u, u ~ U(±limit), for two
    drawn links and 1 for the others. Joints and fingertip move along; masses and inertias stay, as in the original.
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
    start_velocity_limit = 0.005

    def __init__(self, *, random_target: bool = False, length_log_scale_limit: float = 0.0):
        """Checks and stores the choices.

        Args:
            random_target: draw the target at every reset from U(±0.15)² outside radius 0.03; False: it is fixed at
                (0.25, 0.15).
            length_log_scale_limit: half-width of the base-2 logarithm of two links' lengths, at least 0; 0: one task.

        Raises:
            UserError: a value of the wrong type or range.
        """
        super().__init__()
        self.random_target = checks.flag("Reacher5DoF.random_target", random_target)
        limit = checks.real("Reacher5DoF.length_log_scale_limit", length_log_scale_limit, minimum=0.0)
        self._lengths = LinkLengths(self.model, limit) if limit > 0 else None
        self.task_dim = 0 if self._lengths is None else LINKS

    @property
    def scaling(self) -> "LinkLengths | None":  # type: ignore[override]
        """Applies tasks that change lengths, if they do."""
        return self._lengths

    def draw_task(self, rng: np.random.Generator | np.random.RandomState) -> np.ndarray:
        """Returns the only task, [0], or the factors of the links' lengths, [5]."""
        return np.zeros(0) if self._lengths is None else self._lengths.draw(rng)

    def draw_reset(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Returns [count, 12]: joint angles (5, rad), joint velocities (5, rad/s), target (2, m)."""
        numbers = np.empty((count, 12))
        for row in numbers:
            row[:5] = rng.uniform(-self.start_limit, self.start_limit, 5)
            row[5:10] = rng.uniform(-self.start_velocity_limit, self.start_velocity_limit, 5)
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
        return qpos, np.concatenate([numbers[:, 5:10], np.zeros_like(target)], axis=1)

    def observation(self, qpos: np.ndarray, qvel: np.ndarray, fields: dict[str, np.ndarray]) -> np.ndarray:
        """Returns [n, 19] float64."""
        joints, target = qpos[:, :5], qpos[:, 5:]
        offset = self.offset(fields)[:, :2]
        return np.concatenate([np.cos(joints), np.sin(joints), target, qvel[:, :5], offset], axis=1)

    def settle(
        self, simulation: MujocoFamilySimulation, before: Any, controls: np.ndarray, tasks: np.ndarray
    ) -> StepOutcome:
        """Returns minus the distance before the step and minus the control cost; `distance` is the one after."""
        control = -0.01 * np.vecdot(controls, controls)
        return StepOutcome(
            control - before,
            np.zeros(simulation.num_copies, bool),
            {"distance": self.remember(simulation), "reward_ctrl": control},
        )

    def reward(self, observation: tf.Tensor, action: tf.Tensor, next_observation: tf.Tensor) -> tf.Tensor:
        """Batch reward -‖o'[-2:]‖ - 0.01 ‖a‖², [...]."""
        return -tf.norm(next_observation[..., -2:], axis=-1) - 0.01 * squared_norm(action)


class LinkLengths:
    """Tasks of `Reacher5DoF` that differ in the lengths of two links."""

    def __init__(self, model: mujoco.MjModel, log_scale_limit: float):
        """Notes where each link's end carries the next body."""
        ends = ["body1", "body2", "body3", "body4", "fingertip"]
        self._children = np.array([model.body(name).id for name in ends])
        self._nominal = model.body_pos.copy()
        self._limit = log_scale_limit

    def draw(self, rng: np.random.Generator | np.random.RandomState) -> np.ndarray:
        """Returns the factors of one task, [5] float64."""
        factors = np.ones(LINKS)
        links = np.sort(rng.choice(LINKS, 2, replace=False))
        factors[links] = 2.0 ** rng.uniform(-self._limit, self._limit, 2)
        return factors

    def apply(self, batch: mujoco_batch.Batch, tasks: np.ndarray) -> None:
        """Gives every copy the lengths of its task ([n, 5])."""
        positions = batch.expand("body_pos")
        positions[:] = self._nominal
        positions[:, self._children, 0] += LINK_LENGTH * (tasks - 1.0)
