"""A meta-step over all shards: adapt every task, then update the meta-parameters (MB-MPO specification, 1.2 and 4).

Shapes: `M` tasks, `K` inner updates.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from mbmpo.meta_objective import Argument, Evaluation, MetaObjective, RandomKey, combined
from mbmpo.meta_updates import Info, MetaUpdate
from mbmpo.policies import GaussianMLPPolicy, Weights
from mbmpo.processing import Processing
from mbmpo.settings import InnerAdaptation
from mbmpo.shard import Adaptation, Collector, MetaShard
from metarl.experiment.learner import Report
from metarl.scaling.shard import TaskBatch, task_slices


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
        objective: shared by the shards of this process.
        meta_update: TRPO, PPO or VPG.
        processing: baseline and advantages.
        collectors: one per shard, with the number of its tasks.
        inner_updates: K.
        horizon: an upper bound of the episodes' lengths.
    """

    def __init__(
        self,
        objective: MetaObjective,
        meta_update: MetaUpdate,
        processing: Processing,
        collectors: Sequence[tuple[Collector, int]],
        inner_updates: int,
        horizon: int,
    ):
        self._meta_update = meta_update
        self.shards = [
            MetaShard(objective, processing, collector, count, inner_updates, horizon)
            for collector, count in collectors
        ]

    def adapt(
        self, theta: Weights, tasks: TaskBatch, seed: int, iteration: int, phase: str, *, keep: bool = True
    ) -> list[Adaptation]:
        """Collects and adapts on every shard, in task order; arguments as in `MetaShard.collect`."""
        parts = task_slices(self.shards, tasks)
        return [
            shard.collect(theta, part, seed, iteration, phase=phase, keep=keep)
            for shard, part in zip(self.shards, parts, strict=True)
        ]

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
            answers, start = [], 0
            for shard, adaptation in zip(self.shards, adaptations, strict=True):
                part = None if argument is None else argument.part(start, start + shard.num_tasks)
                answers.append(shard.evaluate(adaptation.key, theta, what, part))
                start += shard.num_tasks
            return combined(answers)

        return self._meta_update.update(theta, state, evaluate, report, key)


def adapted_weights(adaptations: Sequence[Adaptation]) -> Weights:
    """The adapted weights of all tasks, [M, ...]."""
    if len(adaptations) == 1:
        return adaptations[0].adapted
    return tf.nest.map_structure(lambda *parts: tf.concat(parts, axis=0), *(part.adapted for part in adaptations))


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
