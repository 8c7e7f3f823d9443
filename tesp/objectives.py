"""The maths of one meta-update: inner gradient, accumulated adaptation, outer loss (TESP specification, 3.3 to 3.5).

Pure functions on tensors. Shapes: `M` tasks, `S` steps per task, `K` fast-updates.
"""

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from metarl.networks.mlp import fan_out
from metarl.optim.ppo import clipped_surrogate, masked_mean
from metarl.policies import gaussian
from metarl.sampling.steps import Steps
from tesp.methods import EncoderInput, MetaParameters, Method
from tesp.methods.base import Weights

_LEAST_SQUARED_NORM = 1e-30


class Round(NamedTuple):
    """One sampling round as the losses see it.

    Attributes:
        steps: [M, S] structure of tensors.
        advantage: [M, S] float32, not normalised.
        episodes: the buffer at the time the round was sampled; None for methods without encoder.
    """

    steps: Steps
    advantage: tf.Tensor
    episodes: EncoderInput | None


def without_padding(data: Round) -> Round:
    """The round cut behind its longest task: padding costs as much arithmetic as steps do.

    The number of steps left, S, is dynamic; the function around it is still traced once.
    """
    longest = tf.reduce_max(tf.reduce_sum(tf.cast(data.steps.valid, tf.int32), axis=1))
    steps, advantage = tf.nest.map_structure(lambda x: x[:, :longest], (data.steps, data.advantage))
    return Round(steps, advantage, data.episodes)


class OuterTerms(NamedTuple):
    """Per-task scalars of the outer loss, [M] each: total = policy_loss + eta * model_loss."""

    policy_loss: tf.Tensor
    kl: tf.Tensor
    model_loss: tf.Tensor
    total_loss: tf.Tensor


def inner_loss(method: Method, adapted: Weights, shared: Weights, data: Round, plain: bool = False) -> tf.Tensor:
    """-mean(log pi(a | s, h; theta', phi) A) per task, [M] (section 3.3).

    The embedding is recomputed from the buffer, so that its weights receive gradients through time.
    """
    weights = {**shared, **adapted}
    context = method.context(weights, data.episodes, plain)
    logits = method.logits(weights, data.steps.observation, context)
    return -masked_mean(gaussian.log_prob(logits, data.steps.action) * data.advantage, data.steps.valid)


def inner_gradient(
    method: Method, adapted: Weights, shared: Weights, data: Round, clip_norm: float, plain: bool = False
) -> tuple[Weights, tf.Tensor, tf.Tensor]:
    """Gradient of the inner loss by theta' for every task, rescaled to a global norm of at most clip_norm.

    Returns:
        (g by name, [M, ...]; loss [M]; norm before clipping [M]). All inner variables of a task count for its norm.
    """
    with tf.GradientTape() as tape:
        tape.watch(adapted)
        loss = inner_loss(method, adapted, shared, data, plain)
        # Tasks do not share theta', so the gradient of the sum holds every task's own gradient.
        total = tf.reduce_sum(loss)
    gradient = tape.gradient(total, adapted)
    squares = [tf.reduce_sum(tf.square(g), axis=list(range(1, g.shape.rank))) for g in gradient.values()]
    # Without a warm-up the first gradient of an encoder is exactly zero, where the root's derivative is infinite.
    norm = tf.sqrt(tf.maximum(tf.reduce_sum(tf.stack(squares), axis=0), _LEAST_SQUARED_NORM))
    scale = clip_norm * tf.minimum(1.0 / norm, 1.0 / clip_norm)
    clipped = {name: g * tf.reshape(scale, [-1] + [1] * (g.shape.rank - 1)) for name, g in gradient.items()}
    return clipped, loss, norm


def replayed_adaptation(
    method: Method,
    parameters: MetaParameters,
    rounds: Sequence[Round],
    clip_norm: float,
    second_order: bool,
) -> Weights:
    """G recomputed at the current meta-parameters on the stored rounds D_0 .. D_{K-1} (D5, a deviation).

    Args:
        method: the method.
        parameters: current meta-parameters.
        rounds: the K rounds of the adaptation with the buffers they were sampled with.
        clip_norm: of every inner gradient.
        second_order: keep the dependence of G on the parameters; otherwise G is a constant.

    Returns:
        G by name, [M, ...].
    """
    num_tasks = rounds[0].advantage.shape[0]
    accumulated = {n: tf.zeros([num_tasks, *theta.shape], theta.dtype) for n, theta in parameters.inner.items()}
    leaves = [fan_out(leaf, len(rounds)) for leaf in tf.nest.flatten(parameters)]
    for k, data in enumerate(rounds):
        mine = tf.nest.pack_sequence_as(parameters, [copies[k] for copies in leaves])
        adapted = method.adapted_params(mine, accumulated)
        gradient, _, _ = inner_gradient(method, adapted, mine.shared, data, clip_norm, plain=second_order)
        if not second_order:
            gradient = tf.nest.map_structure(tf.stop_gradient, gradient)
        accumulated = {name: accumulated[name] + gradient[name] for name in accumulated}
    return accumulated


def outer_terms(
    method: Method,
    parameters: MetaParameters,
    accumulated: Weights,
    data: Round,
    clip_param: float,
    plain: bool = False,
) -> OuterTerms:
    """The outer loss of every task on its post-adaptation batch (section 3.5, step 1).

    With `accumulated` held constant the derivative is the first-order one of section 3.4: the identity for theta,
    -(dL/dtheta') G inside the bound for the rates, direct for phi.
    """
    weights = {**parameters.shared, **method.adapted_params(parameters, accumulated)}
    context = method.context(weights, data.episodes, plain)
    steps = data.steps
    logits = method.logits(weights, steps.observation, context)
    log_ratio = gaussian.log_prob(logits, steps.action) - gaussian.log_prob(steps.logits, steps.action)
    policy_loss = -masked_mean(clipped_surrogate(log_ratio, data.advantage, clip_param), steps.valid)
    kl = masked_mean(gaussian.kl_divergence(steps.logits, logits), steps.valid)
    model_loss = tf.zeros_like(policy_loss) if context is None else tf.reduce_mean(tf.square(context), axis=1)
    return OuterTerms(policy_loss, kl, model_loss, policy_loss + method.embedding_coeff * model_loss)
