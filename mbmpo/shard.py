"""One shard of a meta-step: sample or imagine, adapt, sample or imagine again (MB-MPO specification, 1.2 and 6.4).

The same shard serves imagined tasks, which are models, and real ones: what differs is the collector. Shapes: `M` tasks
of the shard, `S` steps per task, `K` inner updates.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
import tensorflow as tf

from mbmpo.meta_objective import Argument, Evaluation, MetaObjective
from mbmpo.objectives import MetaData, Phase, make_phase, per_task
from mbmpo.policies import Weights
from mbmpo.processing import Processing, path_statistics
from mbmpo.reporting import step_progress
from metarl.compiled import Compiled
from metarl.experiment.learner import Report
from metarl.sampling.sampler import SamplingSeconds
from metarl.sampling.steps import Steps
from metarl.scaling.shard import Shard, TaskBatch

Statistics = dict[str, float]

_GRAINS = 32  # every number of rows is a compiled function of its own


class Account(NamedTuple):
    """What a collection cost, and what was wrong with it.

    Attributes:
        env_steps: real steps of complete episodes.
        not_finite: name of the first quantity that was not finite; None if all were.
        seconds: where the time of each phase went, if the phases were sampled.
    """

    env_steps: int = 0
    not_finite: str | None = None
    seconds: tuple[SamplingSeconds, ...] = ()


class Collector(Protocol):
    """Gathers one phase of steps for all tasks of a shard.

    Attributes:
        round_steps: real steps of a phase, as far as that is known before; 0 for imagined phases.
    """

    round_steps: int

    def __call__(
        self,
        weights: Weights,
        tasks: TaskBatch,
        seed: int,
        iteration: int,
        phase: str,
        progress: Callable[[int], None] | None = None,
    ) -> Steps:
        """Returns steps [M, S, ...] of policies with `weights` [M, ...]; `phase` keys the random numbers.

        `progress` is told of real steps, see `Sampler.collect`.
        """

    def account(self) -> Account:
        """What was gathered since the last account."""


class Adaptation(NamedTuple):
    """What one collection gave.

    Attributes:
        key: names the data kept for `MetaShard.evaluate`.
        adapted: weights after the last inner update, [M, ...].
        statistics: of the phases after 0 .. K inner updates: see `processing.path_statistics`.
        seconds: wall-clock: "sampling", "processing" and "inner".
        account: of the real steps.
    """

    key: Any
    adapted: Weights
    statistics: list[Statistics]
    seconds: dict[str, float]
    account: Account


class MetaShard(Shard[Adaptation]):
    """Adapts M tasks and answers for the meta-update.

    Args:
        objective: adaptation, losses and constraints, compiled.
        processing: baseline and advantages.
        collector: where the steps come from.
        num_tasks: M.
        inner_updates: K.
        horizon: an upper bound of the episodes' lengths.
    """

    def __init__(
        self,
        objective: MetaObjective,
        processing: Processing,
        collector: Collector,
        num_tasks: int,
        inner_updates: int,
        horizon: int,
    ):
        self.num_tasks = num_tasks
        self._objective, self._collector, self._inner_updates = objective, collector, inner_updates
        self._cache: dict[Any, tuple[MetaData, np.ndarray]] = {}

        def make(steps: Steps) -> tuple[Phase, dict[str, tf.Tensor]]:
            processed = processing.fitted(steps, horizon)
            return make_phase(steps, processed.advantage), path_statistics(steps, processed)

        self._make_phase = Compiled(make)
        self._tile = Compiled(lambda weights: per_task(weights, weights, num_tasks))

    def collect(
        self,
        parameters: Weights,
        tasks: TaskBatch,
        seed: int,
        iteration: int,
        *,
        phase: str = "train",
        keep: bool = True,
        report: Report | None = None,
    ) -> Adaptation:
        """K times {steps, one inner update}, then the steps of the adapted policies.

        Args:
            parameters: theta.
            tasks: M tasks and their indices in the meta-batch.
            seed: of the experiment.
            iteration: 0-based.
            phase: keys the random numbers together with seed, iteration and task index.
            keep: store the data for `evaluate`, in place of what was stored before.
            report: is told of real steps as they are made, "step 1200/8000" of all phases together.
        """
        seconds = dict.fromkeys(("sampling", "processing", "inner"), 0.0)
        weights = self._tile(self._objective.policy_weights(parameters))
        phases: list[Phase] = []
        statistics: list[Statistics] = []
        for update in range(self._inner_updates + 1):
            started = time.perf_counter()
            progress = None if report is None else self._progress(report, update)
            steps = self._collector(weights, tasks, seed, iteration, f"{phase}/phase_{update}", progress)
            sampled = time.perf_counter()
            data, numbers = self._make_phase(tf.nest.map_structure(tf.convert_to_tensor, steps))
            statistics.append({name: float(value) for name, value in numbers.items()})
            processed = time.perf_counter()
            phases.append(data)
            if update < self._inner_updates:
                weights = self._objective.adapt(parameters, weights, data)
            seconds["sampling"] += sampled - started
            seconds["processing"] += processed - sampled
            seconds["inner"] += time.perf_counter() - processed
        key = (phase, iteration)
        if keep:
            kept = _trimmed(phases)
            self._cache = {key: (MetaData(tuple(kept[:-1]), kept[-1]), tasks.indices)}
        return Adaptation(key, weights, statistics, seconds, self._collector.account())

    def evaluate(self, key: Any, parameters: Weights, what: str, argument: Argument | None = None) -> Evaluation:
        """Sums over the shard's tasks or rows of what is asked for; see `MetaObjective.evaluate`.

        Args:
            key: of the collection.
            parameters: theta.
            what: name of the evaluation.
            argument: vector, penalties and mini-batch; penalties are those of the shard's tasks.
        """
        data, indices = self._cache[key]
        return self._objective.evaluate(what, parameters, data, argument, indices.tolist())

    def _progress(self, report: Report, update: int) -> Callable[[int], None]:
        steps = self._collector.round_steps
        return step_progress(report, "step", (self._inner_updates + 1) * steps, update * steps, steps)

    def kept_phase(self, key: Any) -> Phase:
        """The phase after the last inner update of a collection that was kept."""
        return self._cache[key][0].post

    def kept_arrays(self) -> dict[str, np.ndarray]:
        """The kept data as named arrays: evidence after a crash."""
        arrays: dict[str, np.ndarray] = {}
        for data, _ in self._cache.values():
            for number, phase in enumerate([*data.pre, data.post]):
                arrays |= {f"phase_{number}/{name}": np.asarray(value) for name, value in phase._asdict().items()}
        return arrays


def _trimmed(phases: list[Phase]) -> list[Phase]:
    """The phases without padding that none of their tasks uses, up to a 32nd of the capacity.

    Where episodes can end early the capacity is almost twice the usual number of steps, and a meta-update goes through
    the rows some twenty times. The number of rows left is a function of these data alone, so that a resume repeats it.
    """
    capacity = phases[0].valid.shape[1]
    used = max(int(np.max(np.nonzero(np.asarray(phase.valid))[1], initial=0)) + 1 for phase in phases)
    grain = -(-capacity // _GRAINS)
    rows = min(capacity, -(-used // grain) * grain)
    return phases if rows == capacity else [Phase(*(x[:, :rows] for x in phase)) for phase in phases]
