"""The planar walker (specification, section 7.2)."""

import gin
import numpy as np
import tensorflow as tf

from mbmpo.families.base import MujocoFamilySimulation
from mbmpo.families.locomotion import Locomotion, clipped_velocities
from mbmpo.families.random_parameters import RandomParameters
from metarl.experiment import checks

HEIGHT = (0.8, 2.0)
ANGLE = (-1.0, 1.0)


@gin.configurable(module="mbmpo")
class Walker2D(Locomotion):
    """Two planar legs with six joints; see `Locomotion` for reward, which is not clipped, and options.

    Observation (O = 17): qpos without x (8), then qvel (9) within ±10. Actions (A = 6).

    An episode ends, in imagination too, when the torso's height is not in (0.8, 2.0) m or its angle not in (-1, 1) rad.
    """

    name = "walker2d"
    observation_dim = 17
    action_dim = 6
    ends_early = True
    can_terminate = True
    # The feet's frictions differ, 0.9 and 1.9, as the original's do; gymnasium's v5 file has 1.9 for both.
    model_file = "walker2d.xml"
    velocity_index = 8
    control_cost = 0.001
    alive_bonus = 1.0
    clips_reward = False
    clips_model_reward = False

    def __init__(
        self,
        *,
        timestep: float = 0.004,
        frame_skip: int = 5,
        target_velocity: float | None = None,
        clip_action_in_model_reward: bool = False,
        random_parameters: RandomParameters | None = None,
    ):
        """See `Locomotion` for the other arguments and the errors.

        Args:
            timestep: seconds per physics step, above 0; 0.002 in the submission (O-18).
            frame_skip: physics steps per control step, at least 1; 4 in the submission.
            target_velocity: m/s.
            clip_action_in_model_reward: let the batch reward see the action clipped to ±1.
            random_parameters: physical parameters that a task changes.
        """
        self.timestep = checks.real("Walker2D.timestep", timestep, minimum=1e-6)
        self.frame_skip = checks.integer("Walker2D.frame_skip", frame_skip, minimum=1)
        super().__init__(
            target_velocity=target_velocity,
            clip_action_in_model_reward=clip_action_in_model_reward,
            random_parameters=random_parameters,
        )

    def observation(self, qpos: np.ndarray, qvel: np.ndarray, fields: dict[str, np.ndarray]) -> np.ndarray:
        """Returns [n, 17] float64."""
        return clipped_velocities(qpos, qvel)

    def has_ended(self, simulation: MujocoFamilySimulation) -> np.ndarray:
        """See the class; [n] bool."""
        height, angle = simulation.qpos[:, 1], simulation.qpos[:, 2]
        return ~((height > HEIGHT[0]) & (height < HEIGHT[1]) & (angle > ANGLE[0]) & (angle < ANGLE[1]))

    def termination(self, next_observation: tf.Tensor) -> tf.Tensor:
        """See the class; [...] bool."""
        height, angle = next_observation[..., 0], next_observation[..., 1]
        upright = (height > HEIGHT[0]) & (height < HEIGHT[1]) & (angle > ANGLE[0]) & (angle < ANGLE[1])
        return ~upright
