"""The planar snake in a viscous medium (specification, section 7.2)."""

from typing import Any

import gin
import numpy as np
import tensorflow as tf

from mbmpo.families.base import REWARD_LIMIT, MujocoFamily, MujocoFamilySimulation, clip_reward
from mbmpo.families.control_cost import control_fraction, squared_norm
from mbmpo.families.random_parameters import RandomParameters
from metarl.experiment import checks
from metarl.simulation.task_family import StepOutcome

CONTROL_LIMIT = 50.0
CONTROL_COST = 0.005


@gin.configurable(module="mbmpo")
class Snake(MujocoFamily):
    """Five links with four motors of ±50; a control step is 50 × 0.001 s. There is no early end.

    Observation (O = 14): x, y of the centre of mass (m), angle of the first link, four joint angles (rad), velocity of
    the centre of mass (2, m/s), velocity of the five angles (rad/s). Actions (A = 4), normalised.

    Reward, real: v_x of the centre of mass - 0.005 ‖u / 50‖², u the control, within ±1000. Imagined: the same with the
    next observation's v_x, and with the normalised action in the place of u (O-11) unless asked otherwise.
    """

    name = "snake"
    observation_dim = 14
    action_dim = 4
    model_file = "snake.xml"
    own_model = True
    frame_skip = 50
    memory = 1 << 16
    fields = ("sensordata",)

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
            "Snake.scale_action_in_model_reward", scale_action_in_model_reward
        )

    def observation(self, qpos: np.ndarray, qvel: np.ndarray, fields: dict[str, np.ndarray]) -> np.ndarray:
        """Returns [n, 14] float64; the sensors are the centre of mass and its velocity, 3 numbers each."""
        sensors = fields["sensordata"]
        return np.concatenate([sensors[:, :2], qpos[:, 2:], sensors[:, 3:5], qvel[:, 2:]], axis=1)

    def settle(
        self, simulation: MujocoFamilySimulation, before: Any, controls: np.ndarray, tasks: np.ndarray
    ) -> StepOutcome:
        """Returns the forward velocity after the step minus the control cost."""
        velocity = simulation.fields["sensordata"][:, 3].copy()
        fraction = controls / CONTROL_LIMIT
        control = -CONTROL_COST * np.vecdot(fraction, fraction)
        return StepOutcome(
            clip_reward(velocity + control),
            np.zeros(simulation.num_copies, bool),
            {"reward_run": velocity, "reward_ctrl": control},
        )

    def reward(self, observation: tf.Tensor, action: tf.Tensor, next_observation: tf.Tensor) -> tf.Tensor:
        """Batch reward o'[7] - 0.005 ‖a / 50‖² within ±1000, [...]."""
        fraction = control_fraction(action, CONTROL_LIMIT, self.scale_action_in_model_reward)
        reward = next_observation[..., 7] - CONTROL_COST * squared_norm(fraction)
        return tf.clip_by_value(reward, -REWARD_LIMIT, REWARD_LIMIT)
