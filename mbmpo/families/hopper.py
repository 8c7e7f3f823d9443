"""The hopper (specification, section 7.2)."""

import gin
import numpy as np
import tensorflow as tf

from mbmpo.families.base import MujocoFamilySimulation
from mbmpo.families.locomotion import Locomotion, all_finite, clipped_velocities
from mbmpo.families.random_parameters import RandomParameters
from metarl.experiment import checks

MIN_HEIGHT = 0.7
MAX_ANGLE = 0.2
STATE_LIMIT = 100.0


@gin.configurable(module="mbmpo")
class Hopper(Locomotion):
    """A planar leg with three joints; see `Locomotion` for reward and options.

    Observation (O = 11): qpos without x (5), then qvel (6) within ±10. Actions (A = 3).

    An episode ends when a number is not finite, the torso's height is 0.7 m or less, or its angle reaches 0.2 rad; also
    when a number of the state, without x and unclipped, reaches 100 in size (in imagination: of the observation without
    its first three).
    """

    name = "hopper"
    observation_dim = 11
    action_dim = 3
    ends_early = True
    can_terminate = True
    model_file = "hopper.xml"
    velocity_index = 5
    control_cost = 0.001
    alive_bonus = 1.0

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
        self.timestep = checks.real("Hopper.timestep", timestep, minimum=1e-6)
        self.frame_skip = checks.integer("Hopper.frame_skip", frame_skip, minimum=1)
        super().__init__(
            target_velocity=target_velocity,
            clip_action_in_model_reward=clip_action_in_model_reward,
            random_parameters=random_parameters,
        )

    def observation(self, qpos: np.ndarray, qvel: np.ndarray, fields: dict[str, np.ndarray]) -> np.ndarray:
        """Returns [n, 11] float64."""
        return clipped_velocities(qpos, qvel)

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
