"""The planar snake in a viscous medium (specification, section 7.2)."""

from typing import Any

import gin
import numpy as np
import tensorflow as tf

from mbmpo.families.base import REWARD_LIMIT, MujocoFamilySimulation, clip_reward
from mbmpo.families.control_cost import ScaledControlFamily
from metarl.simulation.task_family import StepOutcome


@gin.configurable(module="mbmpo")
class Snake(ScaledControlFamily):
    """Five links with four motors of ±50; a control step is 50 × 0.001 s. There is no early end.

    Observation (O = 14): x, y of the centre of mass (m), angle of the first link, four joint angles (rad), velocity of
    the centre of mass (2, m/s), velocity of the five angles (rad/s). Actions (A = 4), normalised.

    Reward, real: v_x of the centre of mass - 0.005 ‖u / 50‖², u the control, within ±1000. Imagined: the same with the
    next observation's v_x, and with the normalised action in the place of u (O-11) unless asked otherwise.
    """

    name = "snake"
    observation_dim = 14
    action_dim = 4
    control_limit = 50.0
    control_cost = 0.005
    model_file = "snake.xml"
    own_model = True
    frame_skip = 50
    memory = 1 << 16
    fields = ("sensordata",)

    def observation(self, qpos: np.ndarray, qvel: np.ndarray, fields: dict[str, np.ndarray]) -> np.ndarray:
        """Returns [n, 14] float64; the sensors are the centre of mass and its velocity, 3 numbers each."""
        sensors = fields["sensordata"]
        return np.concatenate([sensors[:, :2], qpos[:, 2:], sensors[:, 3:5], qvel[:, 2:]], axis=1)

    def settle(
        self, simulation: MujocoFamilySimulation, before: Any, controls: np.ndarray, tasks: np.ndarray
    ) -> StepOutcome:
        """Returns the forward velocity after the step minus the control cost."""
        velocity = simulation.fields["sensordata"][:, 3].copy()
        control = -self.real_cost(controls)
        return StepOutcome(
            clip_reward(velocity + control),
            np.zeros(simulation.num_copies, bool),
            {"reward_run": velocity, "reward_ctrl": control},
        )

    def reward(self, observation: tf.Tensor, action: tf.Tensor, next_observation: tf.Tensor) -> tf.Tensor:
        """Batch reward o'[7] - 0.005 ‖a / 50‖² within ±1000, [...]."""
        reward = next_observation[..., 7] - self.imagined_cost(action)
        return tf.clip_by_value(reward, -REWARD_LIMIT, REWARD_LIMIT)
