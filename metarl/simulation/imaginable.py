"""Task families that can be imagined: their reward and termination are known functions of observations.

Shapes: leading axes `...` are free, `O` observation, `A` action, `k` copies.
"""

import abc

import numpy as np
import tensorflow as tf

from metarl.simulation.task_family import TaskFamily


class ImaginableFamily(TaskFamily):
    """A family with a batch reward and a batch termination, as a learned model of its dynamics needs them.

    The reward is never learned (MB-MPO specification, section 0): imagination calls these functions with predicted
    observations and with the policy's raw actions, in normalised units and unclipped.

    Attributes:
        can_terminate: whether imagined episodes may end before the horizon; False: `termination` is never called.
    """

    can_terminate: bool = False

    @abc.abstractmethod
    def reward(self, observation: tf.Tensor, action: tf.Tensor, next_observation: tf.Tensor) -> tf.Tensor:
        """Batch reward [...], in the type of `next_observation` (float32 or float64).

        Args:
            observation: [..., O] before the step.
            action: [..., A], normalised units, unclipped.
            next_observation: [..., O] after the step.
        """

    def termination(self, next_observation: tf.Tensor) -> tf.Tensor:
        """Whether the episode ends at `next_observation` [..., O], [...] bool."""
        return tf.zeros(tf.shape(next_observation)[:-1], tf.bool)

    def initial_observations(self, numbers: np.ndarray) -> np.ndarray:
        """Observations after resets with the given random numbers (see `TaskFamily.draw_reset`).

        Args:
            numbers: [k, reset_dim] float64.

        Returns:
            [k, O] float64.
        """
        simulation = self.make_simulation(len(numbers))
        simulation.reset(None, numbers)
        return simulation.observe()
