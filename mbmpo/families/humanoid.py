"""The humanoid (specification, section 7.2)."""

from typing import Any

import gin
import mujoco
import numpy as np
import tensorflow as tf

from mbmpo.families.base import MujocoFamilySimulation
from mbmpo.families.control_cost import ScaledControlFamily, squared_norm
from mbmpo.families.sensors import add_contact_force_trigger
from metarl.simulation.task_family import StepOutcome

# Heights of the root between which the humanoid counts as standing, metres.
HEALTHY_Z = (0.8, 2.0)
ALIVE_BONUS = 0.2
SIDE_COST = 0.005
IMPACT_COST = 5e-6


@gin.configurable(module="mbmpo")
class Humanoid(ScaledControlFamily):
    """Gymnasium's humanoid, five physics steps of 0.003 s per control step.

    Observation (O = 129): qpos without x, y (22: z, quaternion w x y z, 17 joint angles), qvel (23), com-based velocity
    of the world and the 13 bodies (14 × 6). Actions (A = 17), normalised; motors ±0.4.

    Reward, real: v_x + 0.2 - 0.0005 ‖u / 0.4‖² - 0.005 (v_y² + v_z²) - 5e-6 ‖clip(contact forces, ±1)‖², with the
    root's velocity after the step and u the control. Imagined: o'[22] + 0.2 - 0.0005 ‖a / 0.4‖² - 0.005 (o'[23]² +
    o'[24]²) with the normalised action a (O-11) unless asked otherwise. An episode ends, in imagination too, when the
    root's height is not in [0.8, 2.0] (the original imagined [0.2, 0.8]; O-16). A diverged copy ends with reward 0.
    """

    name = "humanoid"
    observation_dim = 129
    action_dim = 17
    control_limit = 0.4
    control_cost = 5e-4
    ends_early = True
    can_terminate = True
    model_file = "humanoid.xml"
    frame_skip = 5
    fields = ("cvel", "cfrc_ext")
    stage = mujoco.mjtStage.mjSTAGE_ACC
    info_keys = ("reward_run", "reward_ctrl", "reward_impact")

    def edit(self, spec: mujoco.MjSpec) -> None:
        """Lets the engine compute contact forces."""
        add_contact_force_trigger(spec, "torso")

    def observation(self, qpos: np.ndarray, qvel: np.ndarray, fields: dict[str, np.ndarray]) -> np.ndarray:
        """Returns [n, 129] float64."""
        return np.concatenate([qpos[:, 2:], qvel, fields["cvel"].reshape(len(qpos), -1)], axis=1)

    def settle(
        self, simulation: MujocoFamilySimulation, before: Any, controls: np.ndarray, tasks: np.ndarray
    ) -> StepOutcome:
        """Returns reward and end of a step."""
        velocity = simulation.qvel[:, 0].copy()
        side = simulation.qvel[:, 1:3]
        control = -self.real_cost(controls)
        impact = -IMPACT_COST * np.square(np.clip(simulation.fields["cfrc_ext"], -1.0, 1.0)).sum(axis=(1, 2))
        reward = velocity + ALIVE_BONUS + control - SIDE_COST * np.vecdot(side, side) + impact
        reward[simulation.diverged] = 0.0
        height = simulation.qpos[:, 2]
        # Written so that a NaN height has fallen.
        fallen = ~((height >= HEALTHY_Z[0]) & (height <= HEALTHY_Z[1])) | simulation.diverged
        return StepOutcome(reward, fallen, {"reward_run": velocity, "reward_ctrl": control, "reward_impact": impact})

    def reward(self, observation: tf.Tensor, action: tf.Tensor, next_observation: tf.Tensor) -> tf.Tensor:
        """Batch reward, [...]; see the class."""
        side = squared_norm(next_observation[..., 23:25])
        return next_observation[..., 22] + ALIVE_BONUS - self.imagined_cost(action) - SIDE_COST * side

    def termination(self, next_observation: tf.Tensor) -> tf.Tensor:
        """Whether the height o'[0] is outside [0.8, 2.0] or not a number, [...] bool."""
        height = next_observation[..., 0]
        return ~((height >= HEALTHY_Z[0]) & (height <= HEALTHY_Z[1]))
