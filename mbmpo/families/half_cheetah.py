"""The half-cheetah (specification, section 7.2)."""

import gin
import numpy as np

from mbmpo.families.locomotion import Locomotion


@gin.configurable(module="mbmpo")
class HalfCheetah(Locomotion):
    """A planar runner with six joints; there is no early end. See `Locomotion` for reward and options.

    Observation (O = 17): qpos without x (8), then qvel (9). Actions (A = 6). One physics step of 0.01 s per control
    step.
    """

    name = "half_cheetah"
    observation_dim = 17
    action_dim = 6
    model_file = "half_cheetah.xml"
    velocity_index = 8
    control_cost = 0.1

    def observation(self, qpos: np.ndarray, qvel: np.ndarray, fields: dict[str, np.ndarray]) -> np.ndarray:
        """Returns [n, 17] float64."""
        return np.concatenate([qpos[:, 1:], qvel], axis=1)
