"""The pole on a cart, a small family for trials and tests; the specification does not have it."""

from typing import Any

import gin
import numpy as np
import tensorflow as tf

from mbmpo.families.base import MujocoFamily, MujocoFamilySimulation
from metarl.simulation.task_family import StepOutcome

# Angle from the vertical at which the pole counts as fallen, rad.
FALLEN_ANGLE = 0.2


@gin.configurable(module="mbmpo")
class InvertedPendulum(MujocoFamily):
    """Keep gymnasium's pole upright; two physics steps of 0.02 s per control step.

    Observation (O = 4): cart (m), angle of the pole (rad), their velocities. Actions (A = 1), normalised; motor ±3.

    Reward, real and imagined: 1 for every step that leaves the pole up. An episode ends, in imagination too, when the
    angle is beyond ±0.2 rad or not a number.
    """

    name = "inverted_pendulum"
    observation_dim = 4
    action_dim = 1
    ends_early = True
    can_terminate = True
    model_file = "inverted_pendulum.xml"
    frame_skip = 2
    memory = 1 << 16
    info_keys = ()

    def observation(self, qpos: np.ndarray, qvel: np.ndarray, fields: dict[str, np.ndarray]) -> np.ndarray:
        """Returns [n, 4] float64."""
        return np.concatenate([qpos, qvel], axis=1)

    def settle(
        self, simulation: MujocoFamilySimulation, before: Any, controls: np.ndarray, tasks: np.ndarray
    ) -> StepOutcome:
        """Returns 1 where the pole is up, and an end with reward 0 elsewhere."""
        up = np.abs(simulation.qpos[:, 1]) <= FALLEN_ANGLE
        return StepOutcome(up.astype(np.float64), ~up, {})

    def reward(self, observation: tf.Tensor, action: tf.Tensor, next_observation: tf.Tensor) -> tf.Tensor:
        """Batch reward: 1 where the pole is up in o', else 0, [...]."""
        return tf.cast(~self.termination(next_observation), next_observation.dtype)

    def termination(self, next_observation: tf.Tensor) -> tf.Tensor:
        """Whether the angle o'[1] is beyond ±0.2 rad or not a number, [...] bool."""
        return ~(tf.abs(next_observation[..., 1]) <= FALLEN_ANGLE)
