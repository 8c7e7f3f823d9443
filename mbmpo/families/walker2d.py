"""The planar walker (specification, section 7.2)."""

import gin
import numpy as np
import tensorflow as tf

from mbmpo.families.base import MujocoFamilySimulation
from mbmpo.families.locomotion import Upright

HEIGHT = (0.8, 2.0)
ANGLE = (-1.0, 1.0)


@gin.configurable(module="mbmpo")
class Walker2D(Upright):
    """Two planar legs with six joints; see `Locomotion` for reward, which is not clipped, and options.

    Observation (O = 17): qpos without x (8), then qvel (9) within ±10. Actions (A = 6).

    An episode ends, in imagination too, when the torso's height is not in (0.8, 2.0) m or its angle not in (-1, 1) rad.
    """

    name = "walker2d"
    observation_dim = 17
    action_dim = 6
    # The feet's frictions differ, 0.9 and 1.9, as the original's do; gymnasium's v5 file has 1.9 for both.
    model_file = "walker2d.xml"
    velocity_index = 8
    clips_reward = False
    clips_model_reward = False

    def has_ended(self, simulation: MujocoFamilySimulation) -> np.ndarray:
        """See the class; [n] bool."""
        height, angle = simulation.qpos[:, 1], simulation.qpos[:, 2]
        return ~((height > HEIGHT[0]) & (height < HEIGHT[1]) & (angle > ANGLE[0]) & (angle < ANGLE[1]))

    def termination(self, next_observation: tf.Tensor) -> tf.Tensor:
        """See the class; [...] bool."""
        height, angle = next_observation[..., 0], next_observation[..., 1]
        upright = (height > HEIGHT[0]) & (height < HEIGHT[1]) & (angle > ANGLE[0]) & (angle < ANGLE[1])
        return ~upright
