"""What a meta-TRPO update costs, in meta-gradients, and a meta-gradient, in plain policy gradients on the same rows.

All are timed in turn in one process, so that a busy machine slows all alike. Shapes: `M` tasks, `S` rows per task and
phase, `O` observation, `A` action.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from benchmarks.report import Row
from mbmpo.meta_objective import Argument, Evaluation
from mbmpo.meta_updates import MetaTRPO
from mbmpo.objectives import MetaData, Phase
from mbmpo.policies import GaussianMLPPolicy, Weights

# A meta-gradient's evaluation each; a line search's evaluation has no gradient and counts as one all the same.
_GRADIENTS = {"loss_gradient": 1, "kl_gradient": 1, "kl_difference": 2}


class MetaTRPOReport(NamedTuple):
    """Times of one size.

    Attributes:
        plain_seconds: a policy gradient on the post-update rows, the fastest repetition.
        meta_seconds: a meta-gradient, the fastest repetition.
        update_seconds: a whole update, the fastest repetition.
        gradients: meta-gradients that an update needs: of the loss, and two per Hessian-vector product.
        trials: evaluations of the line search in an update.
    """

    plain_seconds: float
    meta_seconds: float
    update_seconds: float
    gradients: int
    trials: int

    @property
    def meta_ratio(self) -> float:
        """A meta-gradient in plain gradients."""
        return self.meta_seconds / self.plain_seconds

    @property
    def update_ratio(self) -> float:
        """An update in (number of meta-gradients) x (one meta-gradient)."""
        return self.update_seconds / (self.gradients * self.meta_seconds)


def synthetic_phase(policy: GaussianMLPPolicy, weights: Weights, M: int, S: int, O: int, seed: int) -> Phase:  # noqa: E741
    """Rows sampled by `weights` at random observations, with random advantages."""
    rng = np.random.default_rng(seed)
    observation = rng.standard_normal((M, S, O), np.float32)
    logits = policy.logits(weights, tf.constant(observation))
    mean, log_std = tf.split(logits, 2, axis=-1)
    action = mean + tf.exp(log_std) * rng.standard_normal(mean.shape, np.float32)
    advantage = tf.constant(rng.standard_normal((M, S), np.float32))
    return Phase(tf.constant(observation), action, logits, advantage, tf.ones((M, S), tf.bool))


def meta_trpo_times(
    M: int = 20,
    S: int = 10_000,
    O: int = 17,  # noqa: E741
    A: int = 6,
    hidden_units: int = 32,
    inner_lr: float = 0.001,
    repetitions: int = 3,
) -> MetaTRPOReport:
    """Times plain gradient, meta-gradient and update in turn.

    Args:
        M: tasks.
        S: rows per task in each of the two phases.
        O: observation.
        A: action.
        hidden_units: width of the policy's two layers.
        inner_lr: alpha.
        repetitions: after one uncounted round that traces the functions.
    """
    policy = GaussianMLPPolicy(hidden_sizes=(hidden_units, hidden_units))
    update = MetaTRPO()
    objective = update.make_objective(policy, inner_lr=inner_lr)
    theta = policy.initial_weights(1, O, A)
    pre = synthetic_phase(policy, theta, M, S, O, 1)
    post = synthetic_phase(policy, objective.adapt(theta, None, pre), M, S, O, 2)
    data, plain = MetaData((pre,), post), MetaData((), post)
    asked: list[str] = []

    def evaluate(what: str, theta: Weights, argument: Argument | None = None) -> Evaluation:
        asked.append(what)
        return objective.evaluate(what, theta, data, argument)

    works: tuple[Callable[[], Any], ...] = (
        lambda: objective.evaluate("loss_gradient", theta, plain),
        lambda: objective.evaluate("loss_gradient", theta, data),
        lambda: update.update(theta, {}, evaluate),
    )
    times: list[list[float]] = []
    for _ in range(repetitions + 1):
        asked.clear()
        times.append([_seconds(work) for work in works])
    best = [min(row[i] for row in times[1:]) for i in range(3)]
    gradients = sum(_GRADIENTS.get(what, 0) for what in asked)
    trials = sum(what not in _GRADIENTS for what in asked)
    return MetaTRPOReport(best[0], best[1], best[2], gradients, trials)


def _seconds(work: Callable[[], Any]) -> float:
    """Seconds until every tensor of the result is there."""
    start = time.perf_counter()
    for leaf in tf.nest.flatten(work()):
        np.asarray(leaf)
    return time.perf_counter() - start


def rows(M: int = 20, S: int = 10_000, repetitions: int = 3, judged: bool = True) -> list[Row]:
    """The benchmark's rows for one size; the requirements belong to the canonical one."""
    found = meta_trpo_times(M, S, repetitions=repetitions)
    size = f"2 x {M * S / 1000:g}k rows, {M} tasks"
    return [
        Row(
            f"meta-gradient, {size}",
            1e3 * found.meta_seconds,
            "ms",
            1e3 * found.plain_seconds,
            found.meta_ratio,
            at_most=5.0 if judged else None,
            note="yardstick: plain policy gradient on the same rows",
        ),
        Row(
            f"meta-TRPO update, {size}",
            1e3 * found.update_seconds,
            "ms",
            1e3 * found.gradients * found.meta_seconds,
            found.update_ratio,
            at_most=1.3 if judged else None,
            note=f"yardstick: {found.gradients} meta-gradients; the line search needed {found.trials} more evaluations",
        ),
    ]
