"""Clipped PPO on a frozen batch, with best-iterate selection (TESP specification, section 3.5).

The loop receives the evaluation as a function: it does not know over how many shards the tasks are spread.
Shapes: `M` tasks, `S` steps per task.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from metarl.optim.adam import AdamState, adam_step


def clipped_surrogate(log_ratio: tf.Tensor, advantage: tf.Tensor, clip_param: float) -> tf.Tensor:
    """min(A rho, A clip(rho, 1 - eps, 1 + eps)) per step, rho = exp(log_ratio); any shape."""
    ratio = tf.exp(log_ratio)
    return tf.minimum(advantage * ratio, advantage * tf.clip_by_value(ratio, 1.0 - clip_param, 1.0 + clip_param))


def masked_mean(x: tf.Tensor, valid: tf.Tensor) -> tf.Tensor:
    """Mean over the valid steps of every task: x [M, S], valid [M, S] bool -> [M]."""
    x.shape.assert_is_compatible_with(valid.shape)
    # Not x * mask: padding may hold numbers that overflow, and inf * 0 is not 0.
    kept = tf.where(valid, x, tf.zeros_like(x))
    return tf.reduce_sum(kept, axis=1) / tf.cast(tf.reduce_sum(tf.cast(valid, tf.int32), axis=1), x.dtype)


class BestIterate(NamedTuple):
    """What the loop leaves behind.

    Attributes:
        parameters: those of the selected evaluation.
        adam: the optimiser's state; it has advanced through all steps unless it was rolled back.
        selected: index of the selected evaluation.
        info: its scalars by name.
        history: the scalars of every evaluation.
    """

    parameters: Any
    adam: AdamState
    selected: int
    info: dict[str, float]
    history: list[dict[str, float]]


def best_iterate_loop(
    evaluate: Callable[[Any], tuple[Any, dict[str, float]]],
    parameters: Any,
    adam: AdamState,
    *,
    num_evaluations: int,
    learning_rate: float,
    kl_limit: float,
    num_tasks: int,
    rollback_adam: bool = False,
    evaluate_last: Callable[[Any], dict[str, float]] | None = None,
    report: Callable[[int], None] | None = None,
) -> BestIterate:
    """Evaluates n times, steps n - 1 times, and keeps the best evaluated parameters within the KL limit.

    A candidate has kl < kl_limit and a policy_loss strictly below the best so far; the regulariser does not count.
    There is no early stop: a later iterate may return inside the limit. If none qualifies the parameters stay as they
    were.

    Args:
        evaluate: parameters -> (gradients like the parameters, summed over the tasks; scalars with at least "kl" and
            "policy_loss").
        parameters: where the loop starts.
        adam: carried on from the loop before; moments and step count persist (D13).
        num_evaluations: n, at least 1.
        learning_rate: Adam's.
        kl_limit: the largest mean KL(old || new) of a candidate, exclusive.
        num_tasks: M; Adam's step follows the mean of the tasks' gradients.
        rollback_adam: restore the optimiser's state of the selected iterate too (a deviation from the original).
        evaluate_last: parameters -> the scalars alone; the last evaluation is followed by no step, so that it needs no
            gradient. Default: `evaluate`.
        report: called with the index of every evaluation.
    """
    history: list[dict[str, float]] = []
    best: BestIterate | None = None
    start = (parameters, adam)
    for index in range(num_evaluations):
        if report:
            report(index)
        last = index == num_evaluations - 1
        if last and evaluate_last:
            scalars = evaluate_last(parameters)
        else:
            gradients, scalars = evaluate(parameters)
        history.append(scalars)
        better = best is None or scalars["policy_loss"] < best.info["policy_loss"]
        if scalars["kl"] < kl_limit and better:
            best = BestIterate(parameters, adam, index, scalars, history)
        if not last:
            parameters, adam = adam_step(parameters, gradients, adam, learning_rate, count=num_tasks)
    if best is None:
        best = BestIterate(start[0], start[1], 0, history[0], history)
    return best if rollback_adam else best._replace(adam=adam)
