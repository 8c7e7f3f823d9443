"""The maths of adaptation and meta-objectives (MB-MPO specification, sections 3.3 and 4).

Shapes: `M` tasks, `S` steps per task, `O` observation, `A` action.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import tensorflow as tf

from mbmpo import distributions
from mbmpo.policies import GaussianMLPPolicy, Weights
from metarl.optim.ppo import masked_mean

INNER_LOSSES = ("likelihood", "ratio")


class Phase(NamedTuple):
    """One sampling phase as the losses see it; float32 tensors.

    Attributes:
        observation: [M, S, O].
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


def step_sizes(weights: Mapping[str, tf.Tensor], inner_lr: float) -> Weights:
    """One rate per number of the policy, all `inner_lr`, the log-std's included (section 3.2)."""
    return {name: tf.fill(value.shape, tf.constant(inner_lr, value.dtype)) for name, value in weights.items()}


def inner_loss(
    policy: GaussianMLPPolicy, weights: Mapping[str, tf.Tensor], phase: Phase, kind: str = "likelihood"
) -> tf.Tensor:
    """J of every task, [M] (section 3.3).

    Args:
        policy: the policy.
        weights: shared, or with a leading M.
        phase: the tasks' data.
        kind: "likelihood": -mean(log pi A); "ratio": -mean(pi / pi_recorded A).
    """
    logits = policy.logits(weights, phase.observation)
    if kind == "likelihood":
        weight = distributions.log_prob(logits, phase.action)
    else:
        weight = distributions.likelihood_ratio(logits, phase.logits, phase.action)
    return -masked_mean(weight * phase.advantage, phase.valid)


def adapt(
    policy: GaussianMLPPolicy,
    weights: Mapping[str, tf.Tensor],
    rates: Mapping[str, tf.Tensor],
    phase: Phase,
    kind: str = "likelihood",
) -> Weights:
    """theta'_i = theta - alpha * grad J_i(theta), one inner step of every task (section 3.3).

    Args:
        policy: the policy.
        weights: where to step from: shared, or already adapted, with a leading M.
        rates: alpha by name, without M.
        phase: the tasks' data.
        kind: as in `inner_loss`.

    Returns:
        theta' by name, [M, ...].
    """
    num_tasks = phase.advantage.shape[0]
    # Tasks do not share these copies, so the gradient of the summed loss holds every task's own.
    own = {
        name: value
        if value.shape.rank > rates[name].shape.rank
        else tf.tile(value[tf.newaxis], [num_tasks] + [1] * value.shape.rank)
        for name, value in weights.items()
    }
    with tf.GradientTape() as tape:
        tape.watch(own)
        total = tf.reduce_sum(inner_loss(policy, own, phase, kind))
    gradient = tape.gradient(total, own, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return {name: value - rates[name] * gradient[name] for name, value in own.items()}
