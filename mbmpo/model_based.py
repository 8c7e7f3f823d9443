"""What the model-based methods share: real data, their buffer, the model fit, and the state of a run.

One iteration (MB-MPO specification, section 1.2):

    gather real steps: uniformly random actions in the first iteration, the method's own ones later
    add their transitions to the buffer, first in first out
    (evaluate the policy on the real system: neither stored nor counted)
    fit the ensemble to the buffer, from where the fit before left it
    improve the policy inside the models                                   -- what the methods differ in

Shapes: `M` tasks, `R` copies per task, `H` horizon, `S` steps per task, `E` models.
"""

import abc
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mbmpo import history, reporting, training_plots
from mbmpo.dynamics import DynamicsEnsemble
from mbmpo.finite import require_finite_batch
from mbmpo.real_data import draw_tasks, random_batch
from mbmpo.settings import ModelFit, RealData, part
from mbmpo.stateful import StatefulLearner
from mbmpo.transitions import Transitions, append, empty, from_steps
from metarl.experiment import checks
from metarl.experiment.errors import UserError
from metarl.experiment.learner import Metrics, Report
from metarl.sampling.sampler import SamplingSeconds
from metarl.sampling.steps import Batch
from metarl.scaling.shard import TaskBatch
from metarl.simulation.imaginable import ImaginableFamily


class ModelBasedLearner(StatefulLearner):
    """The outer loop of MB-MPO, ME-TRPO and MB-MPC.

    Args:
        family: the tasks, with a batch reward.
        ensemble: the models.
        real: how real data are gathered.
        fit: how long the models are fitted.
        seed: of everything.
        num_tasks: M of the real rounds.
        first_data: "random" actions in the first iteration, or those of the "policy".

    Attributes:
        gamma: discount of the logged discounted returns.
        models: the ensemble's state.
        buffer: transitions, oldest first.
    """

    gamma: float = 0.99

    changeable = frozenset({"RealData.num_threads"})
    growing = ("buffer/", "history/", "method/plasticity/")

    def __init__(
        self,
        *,
        family: ImaginableFamily,
        ensemble: DynamicsEnsemble,
        real: RealData | None,
        fit: ModelFit | None,
        seed: int,
        num_tasks: int,
        first_data: str = "random",
    ):
        name = type(self).__name__
        self._random_first = first_data == "random"
        self.family = _imaginable(name, family)
        self.ensemble = checks.instance(f"{name}.ensemble", ensemble, DynamicsEnsemble, "@DynamicsEnsemble()")
        self.real = part(f"{name}.real", real, RealData)
        self.fit = part(f"{name}.fit", fit, ModelFit)
        self.seed = checks.integer(f"{name}.seed", seed, minimum=0, maximum=2**32 - 1)
        self.num_tasks = num_tasks
        self.models = self.ensemble.initial_state(self.seed, family.observation_dim, family.action_dim)
        self.buffer: Transitions = empty(family.observation_dim, family.action_dim)
        self._counted_steps = 0
        self._collected_steps = 0
        self._evaluation_steps = 0
        self._last_batch: Batch | None = None
        self._sampling: list[SamplingSeconds] = []
        self._history = history.empty(self.ensemble.num_members)
        self._require_validation_rows()

    @property
    def rollouts_per_task(self) -> int:
        """R of the real rounds."""
        return self.real.rollouts_per_task

    @property
    def horizon(self) -> int:
        """H of the real rounds."""
        return self.real.horizon

    @property
    def stop_rule(self) -> str:
        """When the real rounds end."""
        return self.real.stop_rule

    @property
    def num_threads(self) -> int | None:
        """Simulation threads of the real rounds; None: the cores this process may use."""
        return self.real.num_threads

    @property
    def steps_per_round(self) -> int:
        """B_env, the nominal number of real steps of one iteration (section 1.1)."""
        return self.num_tasks * self.real.rollouts_per_task * self.real.horizon

    def run_iteration(self, report: Report) -> Metrics:
        """Real data, model fit, policy improvement."""
        clock, laps = self._iteration_clock(), reporting.Laps()
        tasks = draw_tasks(self.family, self.num_tasks, self.seed, self.iteration)
        batch = self._gather(tasks, report)
        self._last_batch = batch
        require_finite_batch("the real steps", batch)
        laps.lap("env_sampling")
        self.buffer = append(
            self.buffer, from_steps(batch, store_last=self.real.store_last_transition), self.real.buffer_capacity
        )
        metrics = reporting.episode_metrics("real", batch, self.gamma)
        metrics |= reporting.sampler_metrics("real", self._sampling)
        metrics |= self._evaluate_real(tasks, report)
        laps.lap("evaluation")
        metrics |= self._fit_models(report)
        laps.lap("model_fit")
        metrics |= self._improve(report)
        laps.lap("improvement")
        self.iteration += 1
        metrics |= {
            "env_steps/counted": self._counted_steps,
            "env_steps/collected": self._collected_steps,
            "env_steps/total": self._collected_steps + self._evaluation_steps,
            "env_steps/buffer": len(self.buffer.observation),
        }
        self._history = history.extended(self._history, metrics, self.ensemble.num_members)
        return metrics | laps.metrics() | self._clock_metrics(clock)

    def _gather(self, tasks: TaskBatch, report: Report) -> Batch:
        """The iteration's real data; counts their steps as configured, and truly (O-6)."""
        if self.iteration == 0 and self._random_first:
            asked = self.real.initial_random_steps or self.steps_per_round
            batch = random_batch(
                self.family,
                asked,
                self.steps_per_round,
                self.real.horizon,
                self.seed,
                exact=self.real.exact_random_steps,
                record_final=self.real.store_last_transition,
                truncate=self.stop_rule == "truncate",
                watch=self._watch,
                num_threads=self.num_threads,
                progress=reporting.step_progress(report, "random actions, step", asked),
            )
            self._count(asked, batch)
            return batch
        batch = self._collect_real(tasks, report)
        self._count(self.steps_per_round, batch)
        return batch

    def _watch(self, seconds: SamplingSeconds) -> None:
        """Notes where the time of the latest real data went."""
        self._sampling = [seconds]

    def _count(self, nominal: int, batch: Batch) -> None:
        collected = int(batch.episodes.length.sum())
        self._counted_steps += collected if self.real.true_counting else nominal
        self._collected_steps += collected

    def count_evaluation(self, steps: int) -> None:
        """Books real steps that are neither stored nor counted as samples (O-5)."""
        self._evaluation_steps += steps

    def _fit_models(self, report: Report) -> Metrics:
        max_epochs, fresh = self.fit.plan(self.iteration)
        if fresh:
            self.models = self.ensemble.reinitialised(self.models, self.seed, self.iteration)
        self.models, result = self.ensemble.fit(
            self.models,
            self.buffer,
            seed=self.seed,
            iteration=self.iteration,
            max_epochs=max_epochs,
            report=report,
        )
        return reporting.fit_metrics(result)

    @abc.abstractmethod
    def _collect_real(self, tasks: TaskBatch, report: Report) -> Batch:
        """Real data of an iteration after the first."""

    def _evaluate_real(self, tasks: TaskBatch, report: Report) -> Metrics:
        """Metrics of rollouts on the real system that are neither stored nor counted; none by default."""
        return {}

    @abc.abstractmethod
    def _improve(self, report: Report) -> Metrics:
        """Improves the policy inside the models."""

    @abc.abstractmethod
    def _own_state(self) -> dict[str, Any]:
        """The method's own part of the state: nests by name."""

    @abc.abstractmethod
    def _take_own_state(self, state: Mapping[str, Any]) -> None:
        """Takes over what `_own_state` returned."""

    def _whole_state(self) -> dict[str, Any]:
        counters = {
            "iteration": self.iteration,
            "counted": self._counted_steps,
            "collected": self._collected_steps,
            "evaluation": self._evaluation_steps,
        }
        return {
            "models": self.models,
            "buffer": self.buffer,
            "counters": counters,
            "history": self._history,
            "method": self._own_state(),
        }

    def _take_whole_state(self, state: Mapping[str, Any]) -> None:
        self.models, self.buffer = state["models"], state["buffer"]
        self.iteration = state["counters"]["iteration"]
        self._counted_steps, self._collected_steps = state["counters"]["counted"], state["counters"]["collected"]
        self._evaluation_steps = state["counters"]["evaluation"]
        self._history = state["history"]
        self._take_own_state(state["method"])

    def figures(self) -> dict[str, Figure]:
        """Returns and model losses over the iterations, and the models' present one-step errors."""
        members, effective = self.ensemble.num_members, self.ensemble.effective(self.models)
        return {
            "figures/returns": training_plots.returns_figure(self._history, members),
            "figures/model_losses": training_plots.losses_figure(self._history, members),
            "figures/one_step_error": training_plots.one_step_figure(self.ensemble, effective, self.buffer),
        }

    def crash_evidence(self) -> dict[str, np.ndarray]:
        """The latest real steps, the models and the policy."""
        steps = {} if self._last_batch is None else self._last_batch.steps._asdict()
        return {f"steps/{name}": np.asarray(value) for name, value in steps.items()} | self.state()

    def _require_validation_rows(self) -> None:
        """Refuses a validation split that the first fit could not fill."""
        rollouts = -(-(self.real.initial_random_steps or self.steps_per_round) // self.real.horizon)
        rows = rollouts * (self.real.horizon - (0 if self.real.store_last_transition else 1))
        self.ensemble.num_train_rows(min(rows, self.real.buffer_capacity or rows))


def _imaginable(name: str, family: Any) -> ImaginableFamily:
    if not isinstance(family, ImaginableFamily):
        label = getattr(family, "name", repr(family))
        raise UserError(
            f"{name}.family is {label}, which has no batch reward, so it cannot be imagined; "
            "MAML on real tasks (@MAMLLearner()) and TESP's methods can train on it; @FixedGoal() makes one goal of a "
            "TESP family imaginable"
        )
    return family
