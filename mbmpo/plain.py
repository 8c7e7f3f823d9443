"""Policy gradient without adaptation: one TRPO step on one batch (MB-MPO specification, sections 4.1, 5.4 and 6).

The baseline is the one fitted on the batch before, zero at first. Shapes: `S` steps, `B` baseline features.
"""

import numpy as np
import tensorflow as tf

from mbmpo.meta_objective import Argument, Evaluation
from mbmpo.meta_updates import Info, MetaUpdate
from mbmpo.objectives import MetaData, make_phase
from mbmpo.policies import GaussianMLPPolicy, Weights
from mbmpo.processing import Processing, path_statistics
from metarl.compiled import Compiled
from metarl.sampling.steps import Steps


class PlainUpdate:
    """Processing in the order of the non-MAML methods, then the update.

    Args:
        policy: the policy.
        update: `TRPO`.
        processing: baseline and advantages.
        horizon: an upper bound of the episodes' lengths.
    """

    def __init__(self, policy: GaussianMLPPolicy, update: MetaUpdate, processing: Processing, horizon: int):
        self._update = update
        self.objective = update.make_objective(policy, inner_lr=0.0)

        def prepare(steps: Steps, coefficients: tf.Tensor) -> tuple:
            processed = processing.predicted_then_fitted(steps, coefficients, horizon)
            return make_phase(steps, processed.advantage), processed.coefficients, path_statistics(steps, processed)

        self._prepare = Compiled(prepare)

    @staticmethod
    def initial_baseline(observation_dim: int) -> np.ndarray:
        """Coefficients [1, B] that predict zero."""
        return np.zeros((1, 2 * observation_dim + 4))

    def update(
        self, theta: Weights, coefficients: np.ndarray, steps: Steps
    ) -> tuple[Weights, np.ndarray, Info, dict[str, float]]:
        """One update on steps [1, S, ...].

        Returns:
            New weights, the baseline fitted on these steps, what the update reports, and the paths' statistics.
        """
        phase, fitted, statistics = self._prepare(tf.nest.map_structure(tf.convert_to_tensor, steps), coefficients)
        data = MetaData((), phase)

        def evaluate(what: str, theta: Weights, argument: Argument | None = None) -> Evaluation:
            return self.objective.evaluate(what, theta, data, argument)

        theta, _, info = self._update.update(theta, {}, evaluate)
        return theta, fitted.numpy(), info, {name: float(value) for name, value in statistics.items()}
