"""Formulas of the diagonal Gaussian as MB-MPO's program has them (MB-MPO specification, section 3.4).

`logits` are the 2A parameters of the distribution: the mean of each action dimension, then its log-std. The KL's
denominator carries an extra 1e-8, which is why these are not the functions of `metarl.policies.gaussian`. Shapes:
leading axes are free, `A` action.
"""

import math

import tensorflow as tf

LOG_SQRT_2_PI = 0.5 * math.log(2.0 * math.pi)
KL_EPSILON = 1e-8


def log_prob(logits: tf.Tensor, action: tf.Tensor) -> tf.Tensor:
    """Log pi(a | o) = -sum log std - 1/2 sum ((a - mean) / std)^2 - A/2 log 2 pi.

    Args:
        logits: [..., 2A].
        action: [..., A].

    Returns:
        [...].
    """
    mean, log_std = tf.split(logits, 2, axis=-1)
    standardised = (action - mean) * tf.exp(-log_std)
    return tf.reduce_sum(-0.5 * tf.square(standardised) - log_std - LOG_SQRT_2_PI, axis=-1)


def kl_divergence(logits_old: tf.Tensor, logits_new: tf.Tensor) -> tf.Tensor:
    """KL(old || new), summed over action dimensions, with the original's 1e-8 in the denominator.

    Args:
        logits_old: [..., 2A].
        logits_new: [..., 2A].

    Returns:
        [...].
    """
    mean_old, log_std_old = tf.split(logits_old, 2, axis=-1)
    mean_new, log_std_new = tf.split(logits_new, 2, axis=-1)
    variance_old, variance_new = tf.exp(2.0 * log_std_old), tf.exp(2.0 * log_std_new)
    numerator = tf.square(mean_old - mean_new) + variance_old - variance_new
    return tf.reduce_sum(numerator / (2.0 * variance_new + KL_EPSILON) + log_std_new - log_std_old, axis=-1)


def entropy(logits: tf.Tensor) -> tf.Tensor:
    """Differential entropy in nats, sum (log std + log sqrt(2 pi e)): logits [..., 2A] -> [...]."""
    _, log_std = tf.split(logits, 2, axis=-1)
    return tf.reduce_sum(log_std + LOG_SQRT_2_PI + 0.5, axis=-1)


def likelihood_ratio(logits_new: tf.Tensor, logits_old: tf.Tensor, action: tf.Tensor) -> tf.Tensor:
    """pi_new(a | o) / pi_old(a | o): logits [..., 2A] twice and action [..., A] -> [...]."""
    return tf.exp(log_prob(logits_new, action) - log_prob(logits_old, action))
