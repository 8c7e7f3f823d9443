"""The half-cheetah (specification, section 7.2)."""

from typing import Any

import gin
import numpy as np
import tensorflow as tf

from mbmpo.families.base import REWARD_LIMIT, MujocoFamily, MujocoFamilySimulation, clip_reward
from metarl.simulation.task_family import StepOutcome


@gin.configurable(module="mbmpo")
class HalfCheetah(MujocoFamily):
    """A planar runner with six joints; forward is +x.

    Observation (O = 17): qpos without x, then qvel (9); entry 8 is the forward velocity. Actions (A = 6): motors ±1.
    Real reward: the mean forward velocity over the step - 0.1 ‖a‖², within ±1000; imagination takes the velocity at
    the end of the step (O-12) and the unclipped action (O-11).
    """

    name = "half_cheetah"
    observation_dim = 17
    action_dim = 6
    model_file = "half_cheetah.xml"

    def observation(self, qpos: np.ndarray, qvel: np.ndarray, fields: dict[str, np.ndarray]) -> np.ndarray:
        """Returns positions without x, then velocities, [n, 17] float64."""
        return np.concatenate([qpos[:, 1:], qvel], axis=1)

    def settle(
        self, simulation: MujocoFamilySimulation, before: Any, controls: np.ndarray, tasks: np.ndarray
    ) -> StepOutcome:
        """Returns the mean forward velocity over the step minus the control cost."""
        velocity = (simulation.qpos[:, 0] - before) / self.control_period
        control = -0.1 * np.vecdot(controls, controls)
        return StepOutcome(
            clip_reward(velocity + control),
            np.zeros(simulation.num_copies, bool),
            {"reward_run": velocity, "reward_ctrl": control},
        )

    def reward(self, observation: tf.Tensor, action: tf.Tensor, next_observation: tf.Tensor) -> tf.Tensor:
        """Batch reward: forward velocity after the step minus the control cost."""
        cost = 0.1 * tf.reduce_sum(tf.square(action), axis=-1)
        return tf.clip_by_value(next_observation[..., 8] - cost, -REWARD_LIMIT, REWARD_LIMIT)
