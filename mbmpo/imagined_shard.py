"""A shard whose tasks are imagined: it holds the models as long as an iteration lasts (MB-MPO specification, 1.2).

Shapes: `M` tasks of the shard, `S` steps per task.
"""

from typing import Any

from mbmpo.adaptation_effect import AdaptationEffect, Sums
from mbmpo.dynamics import DynamicsEnsemble
from mbmpo.imagination import Imagination
from mbmpo.meta_objective import MetaObjective
from mbmpo.policies import Weights
from mbmpo.processing import Processing
from mbmpo.shard import Account, MetaShard
from mbmpo.transitions import Transitions
from metarl.sampling.steps import Steps
from metarl.scaling.shard import TaskBatch


class ImaginedCollector:
    """Phases of imagined steps, with whatever models and buffer it was last given.

    Args:
        imagination: of the shard's tasks.
    """

    round_steps = 0

    def __init__(self, imagination: Imagination):
        self._imagination = imagination
        self._effective: Any = None
        self._buffer: Transitions | None = None

    def use(self, effective: Any, buffer: Transitions | None) -> None:
        """Sets the models and the buffer."""
        self._effective, self._buffer = effective, buffer

    def __call__(
        self, weights: Weights, tasks: TaskBatch, seed: int, iteration: int, phase: str, progress: Any = None
    ) -> Steps:
        """One phase; see `mbmpo.shard.Collector`."""
        del progress
        imagined = self._imagination.run(
            weights, self._effective, seed=seed, iteration=iteration, phase=phase, buffer=self._buffer
        )
        return imagined.steps

    def account(self) -> Account:
        """No real steps."""
        return Account()


class ImaginedShard(MetaShard):
    """Adapts M tasks to what it imagines.

    Args:
        objective: adaptation, losses and constraints, compiled.
        processing: baseline and advantages.
        imagination: of the shard's tasks.
        ensemble: the models.
        inner_updates: K.
        disagreement_rows: of each task, for `adaptation_effect`; None for all.
    """

    remembered = ("use", "collect")

    def __init__(
        self,
        objective: MetaObjective,
        processing: Processing,
        imagination: Imagination,
        ensemble: DynamicsEnsemble,
        inner_updates: int,
        disagreement_rows: int | None = None,
    ):
        self._imagined = ImaginedCollector(imagination)
        super().__init__(
            objective, processing, self._imagined, imagination.num_tasks, inner_updates, imagination.horizon
        )
        self._effect = AdaptationEffect(objective.policy, ensemble, disagreement_rows)
        self._effective: Any = None

    def use(self, effective: Any, buffer: Transitions | None) -> None:
        """Sets the models, and the buffer if rollouts start from it: once per iteration, before `collect`."""
        self._effective = effective
        self._imagined.use(effective, buffer)

    def adaptation_effect(self, key: Any, parameters: Weights) -> Sums:
        """Sums of what adaptation from theta changes and where the models disagree, on the steps kept under `key`."""
        weights = self._objective.policy_weights(parameters)
        return self._effect(weights, self._effective, self.kept_phase(key))
