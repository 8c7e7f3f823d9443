"""A meta-step over all shards: adapt every task, then update the meta-parameters (MB-MPO specification, 1.2 and 4).

Shapes: `M` tasks.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from mbmpo.meta_objective import Argument, Evaluation, MetaObjective, RandomKey, joined_terms
from mbmpo.meta_updates import Info, MetaUpdate
from mbmpo.policies import GaussianMLPPolicy, Weights
from mbmpo.settings import InnerAdaptation
from mbmpo.shard import Adaptation
from metarl.experiment.learner import NonFiniteError, Report
from metarl.scaling.pool import ShardPool
from metarl.scaling.shard import TaskBatch


def make_objective(policy: GaussianMLPPolicy, meta_update: MetaUpdate, adaptation: InnerAdaptation) -> MetaObjective:
    """The compiled evaluations that a meta-update asks of its shards."""
    return meta_update.make_objective(
        policy,
        inner_lr=adaptation.inner_lr,
        trainable_inner_lr=adaptation.trainable_inner_lr,
        first_order=adaptation.first_order,
    )


class MetaStep:
    """Adaptation and meta-update of M tasks, however many shards hold them.

    Args:
        pool: of `MetaShard`s.
        meta_update: TRPO, PPO or VPG.
    """

    def __init__(self, pool: ShardPool, meta_update: MetaUpdate):
        self.pool = pool
        self._meta_update = meta_update

    def adapt(
        self, theta: Weights, tasks: TaskBatch, seed: int, iteration: int, phase: str, *, keep: bool = True
    ) -> list[Adaptation]:
        """Collects and adapts on every shard, in task order; arguments as in `MetaShard.collect`."""
        return self.pool.collect(tasks, parameters=theta, seed=seed, iteration=iteration, phase=phase, keep=keep)

    def update(
        self,
        theta: Weights,
        state: Mapping[str, Any],
        adaptations: Sequence[Adaptation],
        report: Report,
        key: RandomKey,
    ) -> tuple[Weights, dict[str, Any], Info]:
        """One meta-update on what `adapt` kept; see `MetaUpdate.update`."""

        def evaluate(what: str, theta: Weights, argument: Argument | None = None) -> Evaluation:
            common = {"key": adaptations[0].key, "parameters": theta, "what": what}
            if argument is None or argument.penalties is None:
                gradient, terms = self.pool.evaluate(**common, argument=argument)
            else:
                own = [{"argument": argument.part(start, stop)} for start, stop in self.pool.ranges()]
                gradient, terms = self.pool.evaluate(own, **common)
            return Evaluation(gradient, joined_terms(terms))

        return self._meta_update.update(theta, state, evaluate, report, key)


def require_finite_steps(what: str, adaptations: Sequence[Adaptation]) -> None:
    """Passes if all that the shards' collectors gathered was finite.

    Raises:
        NonFiniteError: names what was not.
    """
    for adaptation in adaptations:
        if adaptation.account.not_finite is not None:
            raise NonFiniteError(f"not finite: {adaptation.account.not_finite} of {what}")


def adapted_weights(adaptations: Sequence[Adaptation]) -> Weights:
    """The adapted weights of all tasks, [M, ...]."""
    if len(adaptations) == 1:
        return adaptations[0].adapted
    return tf.nest.map_structure(lambda *parts: tf.concat(parts, axis=0), *(part.adapted for part in adaptations))


def slowest(adaptations: Sequence[Adaptation]) -> dict[str, float]:
    """Wall-clock by phase: shards work side by side, so that the slowest is waited for."""
    return {name: max(adaptation.seconds[name] for adaptation in adaptations) for name in adaptations[0].seconds}


def pooled_statistics(adaptations: Sequence[Adaptation], phase: int) -> dict[str, float]:
    """Statistics of one phase over all shards.

    Means are weighted by the shards' numbers of paths; the standard deviation is that of all paths together.
    """
    parts = [adaptation.statistics[phase] for adaptation in adaptations]
    if len(parts) == 1:
        return parts[0]
    weights = np.array([part["num_paths"] for part in parts])
    pooled = {name: float(np.average([part[name] for part in parts], weights=weights)) for name in parts[0]}
    squares = [part["std_return"] ** 2 + part["average_return"] ** 2 for part in parts]
    pooled["std_return"] = float(
        np.sqrt(max(0.0, np.average(squares, weights=weights) - pooled["average_return"] ** 2))
    )
    pooled["max_return"] = max(part["max_return"] for part in parts)
    pooled["min_return"] = min(part["min_return"] for part in parts)
    pooled["num_paths"] = float(weights.sum())
    pooled["perplexity"] = float(np.exp(pooled["entropy"]))
    return pooled
