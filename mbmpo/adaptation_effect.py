"""How far adaptation moves the policy, and how far the models disagree there (MB-MPO specification, section 9.2).

Shapes: `M` tasks, `S` steps per task, `O` observation, `A` action, `n` rows that are looked at.
"""

from typing import Any

import numpy as np
import tensorflow as tf

from mbmpo import distributions
from mbmpo.dynamics import DynamicsEnsemble
from mbmpo.objectives import Phase
from mbmpo.policies import GaussianMLPPolicy, Weights
from metarl.compiled import Compiled
from metarl.experiment.learner import Metrics

# Rows of each task: means over them are what is logged, and every row costs all models.
_ROWS = 100


class AdaptationEffect:
    """Compiled statistics on the steps of adapted policies.

    Args:
        policy: the policy.
        ensemble: the models.
    """

    def __init__(self, policy: GaussianMLPPolicy, ensemble: DynamicsEnsemble):
        def measure(weights: Weights, effective: Any, phase: Phase, rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            observation, action, adapted = (
                tf.gather(x, rows, batch_dims=1) for x in (phase.observation, phase.action, phase.logits)
            )
            unadapted = policy.logits(weights, observation)
            flat = [tf.reshape(x, [-1, x.shape[-1]]) for x in (observation, action)]
            spread = ensemble.predict_std(effective, *flat)
            return tf.reduce_mean(distributions.kl_divergence(unadapted, adapted)), tf.reduce_mean(spread)

        self._measure = Compiled(measure)

    def __call__(self, weights: Weights, effective: Any, phase: Phase) -> Metrics:
        """KL(theta || theta'_i) and the models' standard deviation on about 100 steps of each task, evenly spaced.

        Args:
            weights: theta.
            effective: the models.
            phase: steps of the adapted policies.
        """
        valid = np.asarray(phase.valid)
        rows = np.stack([_spaced(np.flatnonzero(mine)) for mine in valid]).astype(np.int32)
        divergence, spread = self._measure(weights, effective, phase, rows)
        return {"adaptation/kl_pre_post": float(divergence), "model/disagreement": float(spread)}


def _spaced(rows: np.ndarray) -> np.ndarray:
    """100 of the rows, evenly spaced; the first step where there are none."""
    if not len(rows):
        return np.zeros(_ROWS, np.int64)
    return rows[np.linspace(0, len(rows) - 1, _ROWS).astype(np.int64)]
