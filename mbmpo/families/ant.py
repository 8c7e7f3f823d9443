"""The four-legged ant (specification, section 7.2)."""

import gin
import numpy as np
import tensorflow as tf

from mbmpo.families.base import MujocoFamilySimulation
from mbmpo.families.locomotion import Locomotion, all_finite

# Heights of the torso between which the ant counts as standing, metres.
HEALTHY_Z = (0.2, 1.0)


@gin.configurable(module="mbmpo")
class Ant(Locomotion):
    """An ant with eight joints; see `Locomotion` for reward and options. Contacts cost nothing.

    Observation (O = 27): qpos without x, y (13: z, quaternion w x y z, joints), then qvel (14). Actions (A = 8). Two
    physics steps of 0.01 s per control step.

    The velocity is the one at the end of the step, in real steps too; only the real reward is clipped. An episode ends,
    in imagination too, when a number of the observation is not finite or the torso's height is not in [0.2, 1.0].
    """

    name = "ant"
    observation_dim = 27
    action_dim = 8
    ends_early = True
    can_terminate = True
    model_file = "ant.xml"
    frame_skip = 2
    initial_qpos = (0.0, 0.0, 0.55, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, -1.0, 0.0, -1.0, 0.0, 1.0)
    velocity_index = 13
    control_cost = 0.005
    alive_bonus = 1.0
    mean_velocity = False
    clips_model_reward = False

    def observation(self, qpos: np.ndarray, qvel: np.ndarray, fields: dict[str, np.ndarray]) -> np.ndarray:
        """Returns [n, 27] float64."""
        return np.concatenate([qpos[:, 2:], qvel], axis=1)

    def has_ended(self, simulation: MujocoFamilySimulation) -> np.ndarray:
        """Whether the torso has left its range of heights, [n] bool."""
        height = simulation.qpos[:, 2]
        return ~((height >= HEALTHY_Z[0]) & (height <= HEALTHY_Z[1]))

    def termination(self, next_observation: tf.Tensor) -> tf.Tensor:
        """See the class; [...] bool."""
        height = next_observation[..., 0]
        standing = (height >= HEALTHY_Z[0]) & (height <= HEALTHY_Z[1])
        return ~(all_finite(next_observation) & standing)
