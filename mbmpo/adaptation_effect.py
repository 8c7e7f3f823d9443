"""How far adaptation moves the policy, and how far the models disagree there (MB-MPO specification, section 9.2).

Sums over rows, so that shards can be added up. Shapes: `M` tasks, `S` steps per task, `n` rows.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from mbmpo import distributions
from mbmpo.dynamics import DynamicsEnsemble
from mbmpo.objectives import Phase
from mbmpo.policies import GaussianMLPPolicy, Weights
from metarl.compiled import Compiled
from metarl.experiment.learner import Metrics
from metarl.sampling.steps import Steps

Sums = dict[str, tuple[float, int]]
"""By the name of a column, its sum over rows and the number of rows."""

# Rows predicted at a time: the models' activations of all of an iteration's would take gigabytes. Made-up errors that
# depend on the rows of a call (the smooth mask) are those of a block.
_BLOCK = 4000


class Disagreement:
    """The models' standard deviation, averaged over the dimensions, on imagined steps.

    Args:
        ensemble: the models.
        rows_per_task: look at no more steps of a task than this, evenly spread over its valid ones, because every
            model has to predict each of them; None: at all.
    """

    def __init__(self, ensemble: DynamicsEnsemble, rows_per_task: int | None = None):
        self._spread = Compiled(ensemble.disagreement)
        self._rows_per_task = rows_per_task

    def __call__(self, effective: Any, steps: Steps | Phase) -> Sums:
        """Its sum over valid rows.

        Args:
            effective: the models.
            steps: what was imagined.
        """
        rows = _rows(steps.valid, self._rows_per_task)
        spread = _sum(lambda *x: self._spread(effective, *x), rows, (steps.observation, steps.action))
        return {"model/disagreement": (spread, len(rows))}


class AdaptationEffect:
    """KL(theta || theta'_i) and the models' disagreement on the steps of adapted policies.

    Args:
        policy: the policy.
        ensemble: the models.
        disagreement_rows: see `Disagreement`; the KL is of all steps.
    """

    def __init__(self, policy: GaussianMLPPolicy, ensemble: DynamicsEnsemble, disagreement_rows: int | None = None):
        def divergence(weights: Weights, observation: tf.Tensor, adapted: tf.Tensor) -> tf.Tensor:
            unadapted = policy.logits(weights, observation[tf.newaxis])[0]
            return distributions.kl_divergence(unadapted, adapted)

        self._divergence = Compiled(divergence)
        self._disagreement = Disagreement(ensemble, disagreement_rows)

    def __call__(self, weights: Weights, effective: Any, phase: Phase) -> Sums:
        """Their sums over valid rows.

        Args:
            weights: theta.
            effective: the models.
            phase: steps of the adapted policies.
        """
        rows = _rows(phase.valid)
        divergence = _sum(lambda *x: self._divergence(weights, *x), rows, (phase.observation, phase.logits))
        return {"adaptation/kl_pre_post": (divergence, len(rows)), **self._disagreement(effective, phase)}


def means(parts: Sequence[Sums]) -> Metrics:
    """The columns: means over the rows of all shards.

    None where there is no row, and where a sum is not finite: models that are not clipped may predict anything for a
    few rows, which says nothing against the policy and must not end its training.
    """
    metrics: Metrics = {}
    for name in parts[0]:
        total, rows = (sum(numbers) for numbers in zip(*(part[name] for part in parts), strict=True))
        metrics[name] = total / rows if rows and math.isfinite(total) else None
    return metrics


def _rows(valid: Any, per_task: int | None = None) -> np.ndarray:
    """Positions in [M S] of the valid rows of [M, S], of each task no more than `per_task`, evenly spread."""
    valid = np.asarray(valid)
    found = [task * valid.shape[1] + np.flatnonzero(row) for task, row in enumerate(valid)]
    if per_task is not None:
        found = [rows[np.arange(kept) * len(rows) // kept] for rows in found if (kept := min(per_task, len(rows)))]
    return np.concatenate([np.zeros(0, np.int64), *found])


def _sum(function: Callable[..., tf.Tensor], rows: np.ndarray, arrays: Sequence[Any]) -> float:
    """Sum of a function of rows, [n] for arrays [n, ...], over these rows of [M, S, ...], block by block."""
    # Every number of rows is a compiled function of its own.
    size = min(_BLOCK, 1 << max(len(rows) - 1, 0).bit_length())
    flat = [np.reshape(np.asarray(x), (-1, np.shape(x)[-1])) for x in arrays]
    found = 0.0
    for begin in range(0, len(rows), size):
        block = rows[begin : begin + size]
        # All blocks have one shape; the last is filled up with a row that it has anyway.
        taken = np.concatenate([block, np.full(size - len(block), block[0])])
        values = function(*(tf.constant(x[taken]) for x in flat)).numpy()
        found += float(np.sum(values[: len(block)], dtype=np.float64))
    return found
