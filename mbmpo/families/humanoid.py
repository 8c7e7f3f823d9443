"""The humanoid (specification, section 7.2)."""

from typing import Any

import gin
import mujoco
import numpy as np
import tensorflow as tf

from mbmpo.families.base import MujocoFamily, MujocoFamilySimulation
from mbmpo.families.control_cost import control_fraction, squared_norm
from mbmpo.families.random_parameters import RandomParameters
from mbmpo.families.sensors import add_contact_force_trigger
from metarl.experiment import checks
from metarl.simulation.task_family import StepOutcome

# Heights of the root between which the humanoid counts as standing, metres.
HEALTHY_Z = (0.8, 2.0)
ALIVE_BONUS = 0.2
CONTROL_LIMIT = 0.4
CONTROL_COST = 5e-4
SIDE_COST = 0.005
IMPACT_COST = 5e-6


@gin.configurable(module="mbmpo")
class Humanoid(MujocoFamily):
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
    ends_early = True
    can_terminate = True
    model_file = "humanoid.xml"
    frame_skip = 5
    fields = ("cvel", "cfrc_ext")
    stage = mujoco.mjtStage.mjSTAGE_ACC
    info_keys = ("reward_run", "reward_ctrl", "reward_impact")

    def __init__(
        self, *, scale_action_in_model_reward: bool = False, random_parameters: RandomParameters | None = None
    ):
        """Checks and stores the choices.

        Args:
            scale_action_in_model_reward: let the batch reward see the control that the action stands for (O-11).
            random_parameters: physical parameters that a task changes; default none.

        Raises:
            UserError: a value of the wrong type.
        """
        super().__init__(random_parameters=random_parameters)
        self.scale_action_in_model_reward = checks.flag(
            "Humanoid.scale_action_in_model_reward", scale_action_in_model_reward
        )

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
        fraction = controls / CONTROL_LIMIT
        control = -CONTROL_COST * np.vecdot(fraction, fraction)
        impact = -IMPACT_COST * np.square(np.clip(simulation.fields["cfrc_ext"], -1.0, 1.0)).sum(axis=(1, 2))
        reward = velocity + ALIVE_BONUS + control - SIDE_COST * np.vecdot(side, side) + impact
        reward[simulation.diverged] = 0.0
        height = simulation.qpos[:, 2]
        # Written so that a NaN height has fallen.
        fallen = ~((height >= HEALTHY_Z[0]) & (height <= HEALTHY_Z[1])) | simulation.diverged
        return StepOutcome(reward, fallen, {"reward_run": velocity, "reward_ctrl": control, "reward_impact": impact})

    def reward(self, observation: tf.Tensor, action: tf.Tensor, next_observation: tf.Tensor) -> tf.Tensor:
        """Batch reward, [...]; see the class."""
        fraction = control_fraction(action, CONTROL_LIMIT, self.scale_action_in_model_reward)
        side = squared_norm(next_observation[..., 23:25])
        return next_observation[..., 22] + ALIVE_BONUS - CONTROL_COST * squared_norm(fraction) - SIDE_COST * side

    def termination(self, next_observation: tf.Tensor) -> tf.Tensor:
        """Whether the height o'[0] is outside [0.8, 2.0] or not a number, [...] bool."""
        height = next_observation[..., 0]
        return ~((height >= HEALTHY_Z[0]) & (height <= HEALTHY_Z[1]))
