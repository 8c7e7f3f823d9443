"""The hopper (specification, section 7.2)."""

import gin
import numpy as np
import tensorflow as tf

from mbmpo.families.base import MujocoFamilySimulation
from mbmpo.families.locomotion import Upright, all_finite

MIN_HEIGHT = 0.7
MAX_ANGLE = 0.2
STATE_LIMIT = 100.0


@gin.configurable(module="mbmpo")
class Hopper(Upright):
    """A planar leg with three joints; see `Locomotion` for reward and options.

    Observation (O = 11): qpos without x (5), then qvel (6) within ±10. Actions (A = 3).

    An episode ends when a number is not finite, the torso's height is 0.7 m or less, or its angle reaches 0.2 rad; also
    when a number of the state, without x and unclipped, reaches 100 in size (in imagination: of the observation without
    its first three).
    """

    name = "hopper"
    observation_dim = 11
    action_dim = 3
    model_file = "hopper.xml"
    velocity_index = 5

    def has_ended(self, simulation: MujocoFamilySimulation) -> np.ndarray:
        """See the class; [n] bool."""
        qpos, qvel = simulation.qpos, simulation.qvel
        in_range = (np.abs(qpos[:, 2:]) < STATE_LIMIT).all(axis=1) & (np.abs(qvel) < STATE_LIMIT).all(axis=1)
        return ~(in_range & (qpos[:, 1] > MIN_HEIGHT) & (np.abs(qpos[:, 2]) < MAX_ANGLE))

    def termination(self, next_observation: tf.Tensor) -> tf.Tensor:
        """See the class; [...] bool."""
        height, angle = next_observation[..., 0], next_observation[..., 1]
        in_range = tf.reduce_all(tf.abs(next_observation[..., 3:]) < STATE_LIMIT, axis=-1)
        upright = (height > MIN_HEIGHT) & (tf.abs(angle) < MAX_ANGLE)
        return ~(all_finite(next_observation) & in_range & upright)
