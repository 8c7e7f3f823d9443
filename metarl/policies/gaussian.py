"""Diagonal Gaussian policies with state-dependent log-std (TESP specification, sections 2.1 and 2.3).

`logits` are the 2A numbers the network puts out: the mean of each action dimension, then its log-std. Nothing is
squashed or clipped. Shapes: leading axes are free, `A` action.
"""

import tensorflow as tf
import tensorflow_probability as tfp


def distribution(logits: tf.Tensor) -> tfp.distributions.Distribution:
    """N(mean, diag(exp(log_std))^2) over actions, for logits [..., 2A]."""
    mean, log_std = tf.split(logits, 2, axis=-1)
    return tfp.distributions.Independent(tfp.distributions.Normal(mean, tf.exp(log_std)), reinterpreted_batch_ndims=1)


def log_prob(logits: tf.Tensor, action: tf.Tensor) -> tf.Tensor:
    """Log pi(a | s), [...], for logits [..., 2A] and action [..., A].

    The action is standardised first: the standard deviation then enters once, and its gradient is no sum over uses
    (see `metarl.networks.mlp.fan_out`).
    """
    mean, log_std = tf.split(logits, 2, axis=-1)
    standardised = (action - mean) * tf.exp(-log_std)
    unit = tfp.distributions.Normal(tf.zeros([], logits.dtype), tf.ones([], logits.dtype))
    return tf.reduce_sum(unit.log_prob(standardised) - log_std, axis=-1)


def kl_divergence(logits_old: tf.Tensor, logits_new: tf.Tensor) -> tf.Tensor:
    """KL(old || new), [...], for logits [..., 2A]."""
    return distribution(logits_old).kl_divergence(distribution(logits_new))


def entropy(logits: tf.Tensor) -> tf.Tensor:
    """Differential entropy in nats, [...], for logits [..., 2A]."""
    return distribution(logits).entropy()


def sample(logits: tf.Tensor, standard_normal: tf.Tensor) -> tf.Tensor:
    """The action [..., A] that the given standard normal numbers [..., A] select: mean + std * normal."""
    mean, log_std = tf.split(logits, 2, axis=-1)
    return mean + tf.exp(log_std) * standard_normal
