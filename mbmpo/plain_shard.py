"""ME-TRPO's shard: imagined rows, a part of one batch, for a step without adaptation (MB-MPO specification, 6.1).

Baseline and standardisation are over all rows: shards give sums, and are told what they come to. Shapes: `S` steps of
the shard's rows, `B` baseline features.
"""

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from mbmpo.adaptation_effect import Disagreement, Sums
from mbmpo.dynamics import DynamicsEnsemble
from mbmpo.imagination import Imagination
from mbmpo.meta_objective import Argument, Evaluation, MetaObjective
from mbmpo.objectives import MetaData, make_phase
from mbmpo.policies import Weights
from mbmpo.processing import Predicted, Processing, Scale, pooled
from mbmpo.transitions import Transitions
from metarl.compiled import Compiled
from metarl.scaling.shard import Shard, TaskBatch


class Returns(NamedTuple):
    """Mean undiscounted return of the shard's finished rollouts, and their number."""

    mean: float
    rollouts: int


class BatchSums(NamedTuple):
    """`processing.Predicted` without what stays in the shard."""

    gram: np.ndarray
    moment: np.ndarray
    steps: float
    total: float
    least: float


class PlainShard(Shard[Returns]):
    """Imagines rows and answers for the policy's update.

    Args:
        imagination: of the shard's rows.
        objective: losses and constraint, compiled.
        processing: baseline and advantages.
        ensemble: the models.
    """

    remembered = ("use", "collect", "predict", "prepare")

    def __init__(
        self, imagination: Imagination, objective: MetaObjective, processing: Processing, ensemble: DynamicsEnsemble
    ):
        self.num_tasks = imagination.rows_per_task
        self._imagination, self._objective = imagination, objective
        self._models: tuple[Any, Transitions | None] = (None, None)
        self._steps: Any = None
        self._advantage: Any = None
        self._weight = 1.0
        self._data: MetaData | None = None
        self._disagreement = Disagreement(ensemble)
        horizon = imagination.horizon
        self._predict = Compiled(lambda steps, coefficients: processing.predicted(steps, coefficients, horizon))
        self._squares = Compiled(
            lambda advantage, valid, mean: tf.reduce_sum(
                tf.square(tf.where(valid, advantage - mean, tf.zeros_like(advantage))), axis=1
            )[0]
        )
        self._finish = Compiled(
            lambda steps, advantage, scale: make_phase(steps, processing.scaled(advantage, steps.valid, scale))
        )

    def use(self, effective: Any, buffer: Transitions | None) -> None:
        """Sets the models, and the buffer if rollouts start from it."""
        self._models = effective, buffer

    def collect(
        self, parameters: Weights, tasks: TaskBatch, seed: int, iteration: int, *, phase: str = "train"
    ) -> Returns:
        """Imagines the shard's rows of one batch; see `Imagination.run`. Rows are not told by `tasks`."""
        del tasks
        effective, buffer = self._models
        imagined = self._imagination.run(
            parameters, effective, seed=seed, iteration=iteration, phase=phase, buffer=buffer
        )
        self._steps = tf.nest.map_structure(tf.convert_to_tensor, pooled(imagined.steps))
        self._data = None
        return Returns(float(imagined.mean_return[0]), int(imagined.num_episodes[0]))

    def disagreement(self) -> Sums:
        """The models' disagreement on the latest rows, summed over them."""
        return self._disagreement(self._models[0], self._steps)

    def predict(self, coefficients: np.ndarray) -> BatchSums:
        """Advantages with the baseline of the batch before, [1, B]; keeps them and returns their sums."""
        found: Predicted = self._predict(self._steps, coefficients)
        self._advantage = found.advantage
        return BatchSums(found.gram.numpy(), found.moment.numpy(), *(float(x) for x in found[3:]))

    def squares(self, mean: float) -> float:
        """Sum of the advantages' squared deviations from a mean."""
        return float(self._squares(self._advantage, self._steps.valid, np.float64(mean)))

    def prepare(self, scale: Scale, weight: float) -> None:
        """Standardises the advantages: `evaluate` can be called.

        Args:
            scale: of the advantages of all rows.
            weight: what the shard's mean loss counts for: 1 where all shards have as many steps.
        """
        self._weight = weight
        numbers = Scale(*(np.float64(x) for x in scale))
        self._data = MetaData((), self._finish(self._steps, self._advantage, numbers))

    def evaluate(self, key: Any, parameters: Weights, what: str, argument: Argument | None = None) -> Evaluation:
        """Sums over the shard's rows; see `MetaObjective.evaluate`. There is but one batch, whatever the key."""
        del key
        if self._data is None:
            raise ValueError("nothing was prepared")
        gradient, terms = self._objective.evaluate(what, parameters, self._data, argument)
        if gradient is not None and what.endswith("_gradient") and what != "kl_gradient":
            gradient = {name: np.float32(self._weight) * value for name, value in gradient.items()}
        if "loss" in terms:
            terms = {**terms, "loss": np.float32(self._weight) * terms["loss"]}
        return Evaluation(gradient, terms)
