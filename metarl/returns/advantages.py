"""Discounted returns and generalised advantages over episodes laid end to end (TESP specification, 3.6 and 3.7).

Shapes: `M` tasks, `S` steps per task. `last` marks the last step of each episode; padding behind the last episode
holds zeros and passes nothing on.
"""

import tensorflow as tf


def discounted_suffix_sum(x: tf.Tensor, last: tf.Tensor, discount: float, max_length: int) -> tf.Tensor:
    """y_t = x_t + discount * y_{t+1}, restarting behind the last step of every episode.

    The recursion over time is evaluated by doubling: after round j, y_t holds the terms of 2^j steps, so that
    log2(max_length) vector operations replace max_length dependent ones.

    Args:
        x: [M, S].
        last: [M, S] bool.
        discount: in [0, 1].
        max_length: an upper bound of the episodes' lengths.

    Returns:
        [M, S], in the type of x.
    """
    x.shape.assert_is_compatible_with(last.shape)
    decay = tf.where(last, tf.zeros_like(x), tf.constant(discount, x.dtype))
    stride = 1
    while stride < max_length:
        x = x + decay * _earlier(x, stride)
        decay = decay * _earlier(decay, stride)
        stride *= 2
    return x


def discounted_returns(reward: tf.Tensor, last: tf.Tensor, gamma: float, max_length: int) -> tf.Tensor:
    """Return-to-go within the episode, 0 after its last step also where the horizon cut it (section 3.6)."""
    return discounted_suffix_sum(reward, last, gamma, max_length)


def generalized_advantages(
    reward: tf.Tensor, value: tf.Tensor, last: tf.Tensor, gamma: float, lambda_: float, max_length: int
) -> tf.Tensor:
    """A_t = sum_l (gamma lambda)^l delta_{t+l}, delta_t = r_t + gamma v_{t+1} - v_t (section 3.7).

    The value after an episode's last step is 0: a time limit counts as a termination (D9 of the specification).

    Args:
        reward: [M, S].
        value: [M, S], predictions v_t; anything on padding.
        last: [M, S] bool.
        gamma: discount.
        lambda_: the exponential average's parameter.
        max_length: an upper bound of the episodes' lengths.

    Returns:
        [M, S], in the type of reward. Padding rows are meaningless and must be masked.
    """
    next_value = tf.where(last, tf.zeros_like(value), _earlier(value, 1))
    delta = reward + gamma * next_value - value
    return discounted_suffix_sum(delta, last, gamma * lambda_, max_length)


def _earlier(x: tf.Tensor, stride: int) -> tf.Tensor:
    """x_{t+stride} at t; zeros beyond the end."""
    if stride >= x.shape[-1]:
        return tf.zeros_like(x)
    return tf.pad(x[:, stride:], [[0, 0], [0, stride]])
