"""Surrogate losses and KL divergences on one phase's rows, with their derivatives by the policy's output.

MB-MPO specification, sections 3.3, 3.4, 4. Shapes: `M` tasks, `S` steps per task, `A` action; `mean` is [M, S, A] and
`log_std` [M, 1, A], the same for all rows of a task.
"""

from typing import Any, NamedTuple

import tensorflow as tf

from mbmpo import distributions

KINDS = ("likelihood", "ratio", "clipped")
ENTROPY_OF_UNIT = distributions.LOG_SQRT_2_PI + 0.5


class Phase(NamedTuple):
    """One sampling phase as the losses see it; float32 tensors.

    Attributes:
        observation: [M, S, O]; padding must be finite (`make_phase`).
        action: [M, S, A].
        logits: [M, S, 2A], the distribution that the actions were drawn from.
        advantage: [M, S], processed.
        valid: [M, S] bool.
    """

    observation: Any
    action: Any
    logits: Any
    advantage: Any
    valid: Any


class OutputGradient(NamedTuple):
    """Derivatives of a scalar per task by the policy's output.

    Attributes:
        mean: [M, S, A].
        log_std: [M, A], summed over rows.
    """

    mean: tf.Tensor
    log_std: tf.Tensor


class Surrogate(NamedTuple):
    """A surrogate loss at one output of the policy.

    Attributes:
        loss: [M], mean over the valid rows.
        gradient: of the loss by the output.
        weight: [M, S, 1], derivative of the loss by each row's log-probability.
        standardised: [M, S, A], (action - mean) / std.
        inverse_std: [M, 1, A].
    """

    loss: tf.Tensor
    gradient: OutputGradient
    weight: tf.Tensor
    standardised: tf.Tensor
    inverse_std: tf.Tensor


def surrogate(kind: str, mean: tf.Tensor, log_std: tf.Tensor, phase: Phase, clip_eps: float = 0.0) -> Surrogate:
    """A policy-gradient loss with r = pi(a | o) / pi_recorded(a | o).

    Args:
        kind: "likelihood": -mean(log pi A); "ratio": -mean(r A); "clipped": -mean(min(r A, clip(r, 1 +- eps) A)).
        mean: [M, S, A].
        log_std: [M, 1, A].
        phase: the rows.
        clip_eps: eps.
    """
    inverse_std = tf.exp(-log_std)
    standardised = (phase.action - mean) * inverse_std
    squares = tf.square(standardised)
    if kind == "likelihood":
        log_prob = -0.5 * tf.reduce_sum(squares, axis=-1) - _constant(log_std)
        value, slope = log_prob * phase.advantage, phase.advantage
    else:
        recorded_mean, recorded_log_std = recorded(phase)
        recorded_squares = tf.square((phase.action - recorded_mean) * tf.exp(-recorded_log_std))
        # Both distributions' constants cancel but for the log-stds.
        exponent = tf.reduce_sum(0.5 * (recorded_squares - squares) + (recorded_log_std - log_std), axis=-1)
        ratio = tf.exp(exponent)
        value = slope = ratio * phase.advantage
        if kind == "clipped":
            clipped = tf.clip_by_value(ratio, 1.0 - clip_eps, 1.0 + clip_eps) * phase.advantage
            slope = tf.where(value <= clipped, value, tf.zeros_like(value))
            value = tf.minimum(value, clipped)
    weight = -_row_share(slope, phase.valid)[..., tf.newaxis]
    loss = -tf.reduce_sum(_row_share(value, phase.valid), axis=1)
    by_log_std = tf.reduce_sum(weight * (squares - 1.0), axis=1)
    gradient = OutputGradient(weight * standardised * inverse_std, by_log_std)
    return Surrogate(loss, gradient, weight, standardised, inverse_std)


def surrogate_tangent(kind: str, at: Surrogate, mean_tangent: tf.Tensor, log_std_tangent: tf.Tensor) -> OutputGradient:
    """Derivative of `Surrogate.gradient` where the output moves; kinds without clipping.

    Args:
        kind: "likelihood" or "ratio".
        at: the surrogate.
        mean_tangent: [M, S, A].
        log_std_tangent: [M, 1, A].
    """
    xi, scale, weight = at.standardised, at.inverse_std, at.weight
    xi_tangent = -mean_tangent * scale - xi * log_std_tangent
    by_mean = weight * scale * (xi_tangent - xi * log_std_tangent)
    by_log_std = 2.0 * weight * xi * xi_tangent
    if kind == "ratio":
        # The weight is proportional to the ratio, whose relative change is the log-probability's.
        moved = weight * tf.reduce_sum(-xi * xi_tangent - log_std_tangent, axis=-1, keepdims=True)
        by_mean += moved * xi * scale
        by_log_std += moved * (tf.square(xi) - 1.0)
    return OutputGradient(by_mean, tf.reduce_sum(by_log_std, axis=1))


def kl_sums(mean: tf.Tensor, log_std: tf.Tensor, phase: Phase) -> tf.Tensor:
    """KL(recorded || policy) summed over every task's valid rows, [M] (section 3.4)."""
    recorded_mean, recorded_log_std = recorded(phase)
    variance = tf.exp(2.0 * log_std)
    inverse = 1.0 / (2.0 * variance + distributions.KL_EPSILON)
    numerator = tf.square(recorded_mean - mean) + tf.exp(2.0 * recorded_log_std) - variance
    divergence = tf.reduce_sum(numerator * inverse + (log_std - recorded_log_std), axis=-1)
    return tf.reduce_sum(tf.where(phase.valid, divergence, tf.zeros_like(divergence)), axis=1)


def kl_gradient(mean: tf.Tensor, log_std: tf.Tensor, phase: Phase, scale: tf.Tensor) -> OutputGradient:
    """Gradient by the output of scale * `kl_sums`, scale [M]."""
    recorded_mean, recorded_log_std = recorded(phase)
    variance = tf.exp(2.0 * log_std)
    inverse = 1.0 / (2.0 * variance + distributions.KL_EPSILON)
    difference = mean - recorded_mean
    share = tf.where(phase.valid, scale[:, tf.newaxis], tf.zeros([], mean.dtype))[..., tf.newaxis]
    by_mean = share * difference * (2.0 * inverse)
    numerator = tf.square(difference) + tf.exp(2.0 * recorded_log_std) - variance
    slope = 1.0 - 2.0 * variance * inverse - numerator * (4.0 * variance * tf.square(inverse))
    return OutputGradient(by_mean, tf.reduce_sum(share * slope, axis=1))


def recorded(phase: Phase) -> tuple[tf.Tensor, tf.Tensor]:
    """Mean and log-std that the actions were drawn from, [M, S, A] each."""
    mean, log_std = tf.split(phase.logits, 2, axis=-1)
    return mean, log_std


def counts(phase: Phase) -> tf.Tensor:
    """Number of valid rows of every task, [M], float32: exact below 2^24."""
    return tf.reduce_sum(tf.cast(phase.valid, phase.advantage.dtype), axis=1)


def _constant(log_std: tf.Tensor) -> tf.Tensor:
    """What every row's log-probability subtracts, [M, 1]."""
    return tf.reduce_sum(log_std, axis=-1) + distributions.LOG_SQRT_2_PI * log_std.shape[-1]


def _row_share(x: tf.Tensor, valid: tf.Tensor) -> tf.Tensor:
    """Every row's part of the mean over a task's valid rows, [M, S]."""
    count = tf.reduce_sum(tf.cast(valid, x.dtype), axis=1, keepdims=True)
    return tf.where(valid, x / count, tf.zeros_like(x))
