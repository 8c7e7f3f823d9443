"""The swimmer (specification, section 7.2)."""

import gin
import numpy as np

from mbmpo.families.locomotion import Locomotion


@gin.configurable(module="mbmpo")
class Swimmer(Locomotion):
    """Three links with two joints in a viscous plane; there is no early end. See `Locomotion` for reward and options.

    Observation (O = 8): qpos without x, y (3), then qvel (5). Actions (A = 2). One physics step of 0.01 s per control
    step.
    """

    name = "swimmer"
    observation_dim = 8
    action_dim = 2
    model_file = "swimmer.xml"
    velocity_index = 3
    control_cost = 1e-4

    def observation(self, qpos: np.ndarray, qvel: np.ndarray, fields: dict[str, np.ndarray]) -> np.ndarray:
        """Returns [n, 8] float64."""
        return np.concatenate([qpos[:, 2:], qvel], axis=1)
