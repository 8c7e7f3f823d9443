"""What the batch rewards of families whose actuators are not ±1 see of an action (specification, O-11)."""

import tensorflow as tf


def control_fraction(action: tf.Tensor, limit: float, scaled: bool) -> tf.Tensor:
    """The control as a fraction of its range, for the control cost of an imagined step.

    The real reward divides the control by the end of its range, ±limit. The original's batch reward does the same with
    the policy's normalised action, which is already that fraction: its cost is limit² times too small.

    Args:
        action: [..., A], normalised units, unclipped.
        limit: end of the actuators' range.
        scaled: False: a / limit, as the original; True: clip(a, -1, 1), as the real reward.

    Returns:
        [..., A].
    """
    return tf.clip_by_value(action, -1.0, 1.0) if scaled else action / limit


def squared_norm(x: tf.Tensor) -> tf.Tensor:
    """‖x‖² over the last axis, [...]."""
    return tf.reduce_sum(tf.square(x), axis=-1)
