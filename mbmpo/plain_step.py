"""ME-TRPO's step over all shards of imagined rows: one batch, one update (MB-MPO specification, section 6.1).

Moments and normal equations are summed over shards in order. Shapes: `B` baseline features.
"""

from typing import Any

import numpy as np
import tensorflow as tf

from mbmpo.meta_objective import Argument, Evaluation, joined_terms
from mbmpo.meta_updates import Info, MetaUpdate
from mbmpo.plain_shard import BatchSums, Returns
from mbmpo.policies import Weights
from mbmpo.processing import Processing
from metarl.compiled import Compiled
from metarl.returns import linear_baseline
from metarl.scaling.pool import ShardPool, summed
from metarl.scaling.shard import TaskBatch

_solve = Compiled(linear_baseline.solved)


class PlainStep:
    """Batches and updates of the policy, however many shards hold the rows.

    Args:
        pool: of `PlainShard`s.
        update: `TRPO`.
        processing: baseline and advantages.
    """

    def __init__(self, pool: ShardPool, update: MetaUpdate, processing: Processing):
        self._pool, self._update, self._processing = pool, update, processing
        self._rows = TaskBatch(np.zeros((pool.num_tasks, 0)), np.arange(pool.num_tasks))

    def imagine(self, theta: Weights, seed: int, iteration: int, phase: str) -> float:
        """Imagines a batch; returns the mean undiscounted return of its rollouts."""
        found: list[Returns] = self._pool.collect(
            self._rows, parameters=theta, seed=seed, iteration=iteration, phase=phase
        )
        if len(found) == 1:
            return found[0].mean
        return float(np.average([part.mean for part in found], weights=[max(1, part.rollouts) for part in found]))

    def update(self, theta: Weights, coefficients: np.ndarray) -> tuple[Weights, np.ndarray, Info]:
        """One update on the latest batch.

        Args:
            theta: the policy's weights.
            coefficients: of the baseline fitted on the batch before, [1, B].

        Returns:
            New weights, the baseline fitted on this batch, and what the update reports.
        """
        sums: list[BatchSums] = self._pool.call("predict", coefficients=coefficients)
        count = sum(part.steps for part in sums)
        mean = sum(part.total for part in sums) / count
        variance = sum(self._pool.call("squares", mean=mean)) / count
        scale = self._processing.scale(mean, variance, min(part.least for part in sums))
        weights = [{"weight": len(sums) * part.steps / count} for part in sums]
        self._pool.call("prepare", weights, scale=scale)

        def evaluate(what: str, theta: Weights, argument: Argument | None = None) -> Evaluation:
            gradient, terms = self._pool.evaluate(key=None, parameters=theta, what=what, argument=argument)
            return Evaluation(gradient, joined_terms(terms))

        theta, _, info = self._update.update(theta, {}, evaluate)
        normal_equations: Any = summed([(part.gram, part.moment) for part in sums])
        fitted: tf.Tensor = _solve(*normal_equations)
        return theta, fitted.numpy(), info
