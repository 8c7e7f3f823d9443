"""How far adaptation moves the policy, and how far the models disagree there (MB-MPO specification, section 9.2).

Sums over rows, so that shards can be added up. Shapes: `n` rows, `O` observation, `A` action.
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

Sums = dict[str, float]
"""Sums over rows by the name of their column, and the number of "rows"."""

# Rows predicted at a time: the models' activations of all of an iteration's would take gigabytes. Made-up errors that
# depend on the rows of a call (the smooth mask) are those of a block.
_BLOCK = 4000


class Disagreement:
    """The models' standard deviation, averaged over the dimensions, on imagined steps.

    Args:
        ensemble: the models.
    """

    def __init__(self, ensemble: DynamicsEnsemble):
        self._spread = Compiled(ensemble.disagreement)

    def __call__(self, effective: Any, steps: Steps | Phase) -> Sums:
        """Its sum over all valid rows.

        Args:
            effective: the models.
            steps: what was imagined.
        """
        spread = _sum(lambda *rows: self._spread(effective, *rows), steps.valid, (steps.observation, steps.action))
        return {"rows": float(np.count_nonzero(steps.valid)), "model/disagreement": spread}


class AdaptationEffect:
    """KL(theta || theta'_i) and the models' disagreement on the steps of adapted policies.

    Args:
        policy: the policy.
        ensemble: the models.
    """

    def __init__(self, policy: GaussianMLPPolicy, ensemble: DynamicsEnsemble):
        def divergence(weights: Weights, observation: tf.Tensor, adapted: tf.Tensor) -> tf.Tensor:
            unadapted = policy.logits(weights, observation[tf.newaxis])[0]
            return distributions.kl_divergence(unadapted, adapted)

        self._divergence = Compiled(divergence)
        self._disagreement = Disagreement(ensemble)

    def __call__(self, weights: Weights, effective: Any, phase: Phase) -> Sums:
        """Their sums over all valid rows.

        Args:
            weights: theta.
            effective: the models.
            phase: steps of the adapted policies.
        """
        divergence = _sum(
            lambda *rows: self._divergence(weights, *rows), phase.valid, (phase.observation, phase.logits)
        )
        return {"adaptation/kl_pre_post": divergence, **self._disagreement(effective, phase)}


def means(parts: Sequence[Sums]) -> Metrics:
    """The columns: means over the rows of all shards.

    None where there is no row, and where a sum is not finite: models that are not clipped may predict anything for a
    few rows, which says nothing against the policy and must not end its training.
    """
    rows = sum(part["rows"] for part in parts)
    sums = {name: sum(part[name] for part in parts) for name in parts[0] if name != "rows"}
    return {name: value / rows if rows and math.isfinite(value) else None for name, value in sums.items()}


def _sum(function: Callable[..., tf.Tensor], valid: Any, arrays: Sequence[Any]) -> float:
    """Sum of a function of rows, [n] for arrays [n, ...], over the valid rows of [M, S, ...], block by block."""
    rows = np.flatnonzero(np.asarray(valid))
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
