"""Adaptation, and the meta-objective with its derivatives through the inner steps (MB-MPO specification, 3.3 and 4).

With theta_0 = theta and theta_{k+1} = theta_k - alpha * g_k, g_k = grad J(theta_k) on the data of inner step k, the
gradient of L(theta_K) + sum_k extras_k(theta_k) is found backwards:

    v_K = grad L(theta_K),    v_k = v_{k+1} - Hessian J(theta_k) (alpha * v_{k+1}) + grad extras_k(theta_k),

every task by itself. Without inner steps it is an ordinary policy gradient. Shapes: `M` tasks, `S` steps per task, `K`
inner steps. The functions are TensorFlow code on whatever tasks they are given.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from mbmpo import differentiation as network
from mbmpo import surrogates
from mbmpo.policies import GaussianMLPPolicy, Weights
from mbmpo.surrogates import OutputGradient, Phase, Surrogate
from metarl.sampling.steps import Steps

__all__ = ["MetaData", "Objective", "Phase", "adapt", "make_phase", "step_sizes", "task_gradients"]

_RATE_PREFIX = "step_size/"


class MetaData(NamedTuple):
    """What a meta-update sees of some tasks: a phase per inner step, and the phase after the last one.

    Attributes:
        pre: K phases; empty for a plain policy gradient.
        post: the phase sampled by the adapted policies; for K = 0 by the policy itself.
    """

    pre: Sequence[Phase]
    post: Phase


class Objective(NamedTuple):
    """Which losses, constants of an experiment.

    Attributes:
        outer: kind of the surrogate after adaptation: "ratio" (TRPO), "clipped" (PPO) or "likelihood" (VPG).
        inner: kind of the inner loss: "likelihood" (TRPO, VPG) or "ratio" (PPO).
        first_order: take the inner gradients for constants (`stop_grad`).
        entropy_bonus: coefficient of sum_k mean H(pi_theta_k).
        clip_eps: of the clipped surrogate.
        constraint: whose KL is constrained: "post_update" or "pre_update" (section 4.1).
        inner_penalty: whether the loss has KL penalties before the inner steps (PPO).
        outer_penalty: whether it has one after adaptation (PPO without clipping).
        trainable_step_sizes: whether theta holds the step sizes too.
    """

    outer: str = "ratio"
    inner: str = "likelihood"
    first_order: bool = False
    entropy_bonus: float = 0.0
    clip_eps: float = 0.2
    constraint: str = "post_update"
    inner_penalty: bool = False
    outer_penalty: bool = False
    trainable_step_sizes: bool = False


class Penalties(NamedTuple):
    """PPO's KL coefficients per task: inner [M, K], outer [M]."""

    inner: Any
    outer: Any


def make_phase(steps: Steps, advantage: tf.Tensor) -> Phase:
    """The phase of a batch; whatever padding held is replaced by zeros."""

    def cleaned(x: tf.Tensor) -> tf.Tensor:
        x = tf.cast(x, tf.float32)
        valid = tf.reshape(steps.valid, [*steps.valid.shape, *[1] * (x.shape.rank - 2)])
        return tf.where(valid, x, tf.zeros_like(x))

    return Phase(
        cleaned(steps.observation), cleaned(steps.action), cleaned(steps.logits), cleaned(advantage), steps.valid
    )


def step_sizes(weights: Mapping[str, tf.Tensor], inner_lr: float) -> Weights:
    """One rate per number of the policy, all `inner_lr`, the log-std's included (section 3.2)."""
    return {name: tf.fill(value.shape, tf.constant(inner_lr, value.dtype)) for name, value in weights.items()}


def with_trainable_rates(weights: Mapping[str, tf.Tensor], inner_lr: float) -> Weights:
    """Meta-parameters that hold the step sizes too, as "step_size/<name>"."""
    return {**weights, **{_RATE_PREFIX + name: rate for name, rate in step_sizes(weights, inner_lr).items()}}


def split_parameters(theta: Mapping[str, tf.Tensor], inner_lr: float) -> tuple[Weights, Weights]:
    """(policy's weights, step sizes) of meta-parameters; constant step sizes where theta holds none."""
    weights = {name: value for name, value in theta.items() if not name.startswith(_RATE_PREFIX)}
    rates = {name.removeprefix(_RATE_PREFIX): value for name, value in theta.items() if name not in weights}
    return weights, rates or step_sizes(weights, inner_lr)


def per_task(weights: Mapping[str, tf.Tensor], like: Mapping[str, tf.Tensor], num_tasks: int) -> Weights:
    """The weights with a leading M, repeated unless they have one; `like` holds them without."""
    return {
        name: value if value.shape.rank > like[name].shape.rank else tf.repeat(value[tf.newaxis], num_tasks, axis=0)
        for name, value in weights.items()
    }


def adapt(
    policy: GaussianMLPPolicy,
    weights: Mapping[str, tf.Tensor],
    rates: Mapping[str, tf.Tensor],
    phase: Phase,
    kind: str = "likelihood",
) -> Weights:
    """theta'_i = theta - alpha * grad J_i(theta), one inner step of every task (section 3.3).

    J_i is the mean over the task's valid steps of -log pi(a | o) A, or of -pi / pi_recorded A.

    Args:
        policy: the policy.
        weights: where to step from: shared, or already adapted, with a leading M.
        rates: alpha by name, without M.
        phase: the tasks' data.
        kind: "likelihood" or "ratio".

    Returns:
        theta' by name, [M, ...].
    """
    start = per_task(weights, rates, phase.advantage.shape[0])
    return _step(start, rates, _inner_point(policy, start, phase, kind).gradient)


class TaskResult(NamedTuple):
    """A chunk of tasks: gradient by theta [M, ...] (None where not asked for) and terms by name, [M] or [M, K]."""

    gradient: Weights | None
    terms: dict[str, tf.Tensor]


def task_gradients(
    policy: GaussianMLPPolicy,
    objective: Objective,
    weights: Weights,
    rates: Weights,
    data: MetaData,
    penalties: Penalties | None,
    what: str,
) -> TaskResult:
    """Terms and one gradient of the meta-objective for every task by itself.

    Args:
        policy: the policy.
        objective: which losses.
        weights: theta by name, repeated: [M, ...].
        rates: alpha by name, without M.
        data: the tasks' data.
        penalties: the tasks' coefficients; None without.
        what: "loss": gradient of the task's loss; "kl": gradient of its sum of constrained KLs; "terms": none.

    Returns:
        Gradient entries by name, and "step_size/<name>" for the rates. Terms: "kl" and "count", sum and number of the
        rows that the constraint averages; but for "kl" also "loss"; "entropy", the sum over inner steps of mean
        entropies; "inner_kl" [M, K] and "outer_kl", means over the task's rows; "inner_loss" of the first inner step;
        "rows" [M, K + 1].
    """
    if what == "kl" and objective.constraint == "pre_update" and data.pre:
        return _pre_update_kl(policy, objective, weights, rates, data.pre[0])
    points = []
    theta = weights
    for phase in data.pre:
        points.append(_inner_point(policy, theta, phase, objective.inner))
        theta = _step(theta, rates, points[-1].gradient)
    passed = network.forward(theta, data.post.observation)
    log_std = policy.log_std(theta["log_std"])[:, tf.newaxis]
    rows = surrogates.counts(data.post)
    if what == "kl":
        terms = {"kl": surrogates.kl_sums(passed.mean, log_std, data.post), "count": rows}
        by_output = surrogates.kl_gradient(passed.mean, log_std, data.post, tf.ones_like(rows))
    else:
        terms, surrogate = _terms(policy, objective, points, passed.mean, log_std, data, penalties)
        if what == "terms":
            return TaskResult(None, terms)
        by_output = surrogate.gradient
        if objective.outer_penalty and penalties is not None:
            scale = penalties.outer / rows
            by_output = _added(by_output, surrogates.kl_gradient(passed.mean, log_std, data.post, scale))
    v = _gradient(policy, theta, passed, by_output)[0]

    by_rates: dict[str, list[tf.Tensor]] = {name: [] for name in rates if objective.trainable_step_sizes}
    for k, point in reversed(list(enumerate(points))):
        for name, found in by_rates.items():
            found.append(-v[name] * point.gradient[name])
        extra = None if what == "kl" else _extra_gradient(objective, point, penalties, k)
        v = _through_inner_step(policy, objective, point, rates, v, extra)
    if not data.pre and what == "loss" and objective.entropy_bonus:
        # Without inner steps the bonus is the policy's own.
        slope, _ = policy.log_std_derivatives(weights["log_std"])
        v = {**v, "log_std": v["log_std"] - objective.entropy_bonus * slope}
    for name, found in by_rates.items():
        v[_RATE_PREFIX + name] = sum(found[1:], start=found[0]) if found else tf.zeros_like(v[name])
    return TaskResult(v, terms)


class _InnerPoint(NamedTuple):
    """Everything that was computed at one theta_k."""

    weights: Weights
    phase: Phase
    kind: str
    log_std: tf.Tensor
    passed: network.ForwardPass
    reverse: network.BackwardPass
    surrogate: Surrogate
    gradient: Weights


def _inner_point(policy: GaussianMLPPolicy, weights: Weights, phase: Phase, kind: str) -> _InnerPoint:
    passed = network.forward(weights, phase.observation)
    log_std = policy.log_std(weights["log_std"])[:, tf.newaxis]
    surrogate = surrogates.surrogate(kind, passed.mean, log_std, phase)
    gradient, reverse = _gradient(policy, weights, passed, surrogate.gradient)
    return _InnerPoint(weights, phase, kind, log_std, passed, reverse, surrogate, gradient)


def _gradient(
    policy: GaussianMLPPolicy, weights: Weights, passed: network.ForwardPass, by_output: OutputGradient
) -> tuple[Weights, network.BackwardPass]:
    """The gradient by all weights from the gradient by the output."""
    reverse = network.backward(weights, passed, by_output.mean)
    slope, _ = policy.log_std_derivatives(weights["log_std"])
    return {**reverse.gradient, "log_std": slope * by_output.log_std}, reverse


def _step(weights: Weights, rates: Mapping[str, tf.Tensor], gradient: Weights) -> Weights:
    return {name: value - rates[name] * gradient[name] for name, value in weights.items()}


def _added(a: OutputGradient, b: OutputGradient) -> OutputGradient:
    return OutputGradient(a.mean + b.mean, a.log_std + b.log_std)


def _through_inner_step(
    policy: GaussianMLPPolicy,
    objective: Objective,
    point: _InnerPoint,
    rates: Weights,
    v: Weights,
    extra: OutputGradient | None,
) -> Weights:
    """The step from v_{k+1} to v_k; `extra` is the gradient of extras_k by the output at theta_k."""
    if objective.first_order:
        if extra is None:
            return v
        own, _ = _gradient(policy, point.weights, point.passed, extra)
        return {name: v[name] + own[name] for name in v}
    direction = {name: rates[name] * v[name] for name in v}
    slope, bend = policy.log_std_derivatives(point.weights["log_std"])
    tangent = network.forward_tangent(point.weights, point.passed, direction)
    log_std_tangent = (slope * direction["log_std"])[:, tf.newaxis]
    moved = surrogates.surrogate_tangent(point.kind, point.surrogate, tangent.mean, log_std_tangent)
    if extra is not None:
        # One backward pass serves both: what is subtracted from the Hessian's share is added to the gradient.
        moved = OutputGradient(moved.mean - extra.mean, moved.log_std - extra.log_std)
    product = network.backward_tangent(point.weights, direction, point.passed, point.reverse, tangent, moved.mean)
    product["log_std"] = slope * moved.log_std + bend * direction["log_std"] * point.surrogate.gradient.log_std
    return {name: v[name] - product[name] for name in v}


def _extra_gradient(
    objective: Objective, point: _InnerPoint, penalties: Penalties | None, k: int
) -> OutputGradient | None:
    """Gradient by the output at theta_k of what the loss adds there: entropy bonus and inner KL penalty."""
    found = None
    if objective.inner_penalty and penalties is not None:
        scale = penalties.inner[:, k] / surrogates.counts(point.phase)
        found = surrogates.kl_gradient(point.passed.mean, point.log_std, point.phase, scale)
    if objective.entropy_bonus:
        # The entropy is the same for all rows: its mean's derivative by each log-std is 1.
        bonus = tf.fill(tf.shape(point.log_std[:, 0]), tf.constant(-objective.entropy_bonus))
        own = OutputGradient(tf.zeros_like(point.passed.mean), bonus)
        found = own if found is None else _added(found, own)
    return found


def _terms(
    policy: GaussianMLPPolicy,
    objective: Objective,
    points: Sequence[_InnerPoint],
    mean: tf.Tensor,
    log_std: tf.Tensor,
    data: MetaData,
    penalties: Penalties | None,
) -> tuple[dict[str, tf.Tensor], Surrogate]:
    surrogate = surrogates.surrogate(objective.outer, mean, log_std, data.post, objective.clip_eps)
    count = surrogates.counts(data.post)
    kl = surrogates.kl_sums(mean, log_std, data.post)
    outer_kl = kl / count
    per_dimension = surrogates.ENTROPY_OF_UNIT
    entropies = [tf.reduce_sum(p.log_std + per_dimension, axis=[1, 2]) for p in points]
    inner_kls = [surrogates.kl_sums(p.passed.mean, p.log_std, p.phase) for p in points]
    rows = tf.stack([*(surrogates.counts(p.phase) for p in points), count], axis=1)
    entropy = tf.reduce_sum(tf.stack(entropies), axis=0) if points else tf.reduce_sum(log_std + per_dimension, [1, 2])
    inner_kl = tf.stack(inner_kls, axis=1) / rows[:, :-1] if points else tf.zeros_like(rows[:, :0])
    parts = [surrogate.loss]
    if objective.entropy_bonus:
        parts.append(-objective.entropy_bonus * entropy)
    if objective.inner_penalty and penalties is not None:
        parts.append(tf.reduce_sum(penalties.inner * inner_kl, axis=1))
    if objective.outer_penalty and penalties is not None:
        parts.append(penalties.outer * outer_kl)
    # A chain of sums would become AddN, whose order depends on timing.
    loss = tf.reduce_sum(tf.stack(parts), axis=0) if len(parts) > 1 else surrogate.loss
    # The constraint may be on the policy before adaptation; the loss is on the adapted one in any case.
    if objective.constraint == "pre_update" and points:
        kl, count = inner_kls[0], rows[:, 0]
    terms = {
        "loss": loss,
        "kl": kl,
        "count": count,
        "entropy": entropy,
        "inner_kl": inner_kl,
        "outer_kl": outer_kl,
        "inner_loss": points[0].surrogate.loss if points else surrogate.loss,
        "rows": rows,
    }
    return terms, surrogate


def _pre_update_kl(
    policy: GaussianMLPPolicy, objective: Objective, weights: Weights, rates: Weights, phase: Phase
) -> TaskResult:
    """The constraint on the policy before adaptation, on the first inner step's data."""
    passed = network.forward(weights, phase.observation)
    log_std = policy.log_std(weights["log_std"])[:, tf.newaxis]
    count = surrogates.counts(phase)
    by_output = surrogates.kl_gradient(passed.mean, log_std, phase, tf.ones_like(count))
    v, _ = _gradient(policy, weights, passed, by_output)
    if objective.trainable_step_sizes:
        v |= {_RATE_PREFIX + name: tf.zeros_like(v[name]) for name in rates}
    return TaskResult(v, {"kl": surrogates.kl_sums(passed.mean, log_std, phase), "count": count})
