"""Families whose actuators are not ±1, and what their control cost makes of an action (specification, O-11)."""

import numpy as np
import tensorflow as tf

from mbmpo.families.base import MujocoFamily
from mbmpo.families.random_parameters import RandomParameters
from metarl.experiment import checks


class ScaledControlFamily(MujocoFamily):
    """The control cost is of u / limit, with u the control.

    The original's batch reward divides the policy's normalised action in the same way, although it is that fraction
    already: an imagined step costs limit² times too little, unless asked otherwise.

    Attributes:
        control_limit: end of the actuators' range, ±limit.
        control_cost: factor of ‖u / limit‖².
    """

    control_limit: float
    control_cost: float

    def __init__(
        self, *, scale_action_in_model_reward: bool = False, random_parameters: RandomParameters | None = None
    ):
        """Checks and stores the choices.

        Args:
            scale_action_in_model_reward: let the batch reward see the control that the action stands for (O-11).
            random_parameters: physical parameters that a task changes; default none.

        Raises:
            UserError: a value of the wrong type.
        """
        super().__init__(random_parameters=random_parameters)
        name = f"{type(self).__name__}.scale_action_in_model_reward"
        self.scale_action_in_model_reward = checks.flag(name, scale_action_in_model_reward)

    def real_cost(self, controls: np.ndarray) -> np.ndarray:
        """Cost of real steps, [n]; controls [n, A] in actuator units, clipped."""
        fraction = controls / self.control_limit
        return self.control_cost * np.vecdot(fraction, fraction)

    def imagined_cost(self, action: tf.Tensor) -> tf.Tensor:
        """Cost of imagined steps, [...]; action [..., A] in normalised units, unclipped."""
        scaled = self.scale_action_in_model_reward
        fraction = tf.clip_by_value(action, -1.0, 1.0) if scaled else action / self.control_limit
        return self.control_cost * squared_norm(fraction)


def squared_norm(x: tf.Tensor) -> tf.Tensor:
    """‖x‖² over the last axis, [...]."""
    return tf.reduce_sum(tf.square(x), axis=-1)
