"""The learner of the TESP family: one loop for five methods (TESP specification, section 3).

One meta-update:

    draw M goals
    every task:  (warm-up)  ->  K times { sample with theta', fit baseline, clipped inner gradient, G <- G + g }
                 ->  sample the post-adaptation batch P
    n times { gradient of PPO(theta - clip(alpha) G; P) + eta mean(h^2), averaged over tasks; Adam }
    keep the best evaluated iterate within the KL limit; Adam's moments are kept in any case
"""

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import gin
import numpy as np

from metarl.experiment import checks, state_arrays
from metarl.experiment.errors import UserError
from metarl.experiment.learner import EvaluationRequest, EvaluationResult, Metrics, NonFiniteError, Report
from metarl.optim.adam import AdamState, adam_init
from metarl.optim.ppo import BestIterate, best_iterate_loop
from metarl.rendering.rounds import SampledTask
from metarl.scaling.shard import TaskBatch
from metarl.scaling.sharded_learner import ShardedLearner, by_shard, local_shards
from metarl.simulation.task_family import TaskFamily
from tesp import evaluation, rendering, reporting
from tesp.families.goals import GoalSets, draw_task_batch
from tesp.final_table import FinalTable
from tesp.methods import MetaParameters, Method
from tesp.objectives import OuterTerms
from tesp.settings import FastAdaptation, MetaUpdate
from tesp.shard import Adaptation, TespShard, Trajectory
from tesp.task_sets import draw_task_sets, require_tasks, task_batch_stream
from tesp.validation import Validation, adapt_to_goals


@gin.configurable(module="tesp")
class TespLearner(ShardedLearner):
    """Meta-trains one method on one task family.

    Args:
        method: which variables are adapted: `@MAML()`, `@MetaSGD()`, `@MAESN()`, `@TESP()`, `@TESPAdaptivePolicy()`.
        family: the tasks: `@Wheeled()`, `@Ant()`, ..., or any other family with a distribution of tasks, of which the
            "goal" sets then are three independent draws.
        meta_batch_size: M, tasks per meta-update.
        seed: of everything but the goal sets.
        goal_seed: draws the goal sets.
        num_goals: goals in each of the three sets.
        adaptation: settings of sampling and fast-updates; default `FastAdaptation()`.
        meta_update: settings of the outer loop; default `MetaUpdate()`.
        validation: when and how the goal sets are validated; default `Validation()`.
        final: the table at the end; default `FinalTable()`.
    """

    changeable = frozenset({"FastAdaptation.encoder_episode_capacity"})  # padding carries no information

    def __init__(
        self,
        *,
        method: Method = gin.REQUIRED,
        family: TaskFamily = gin.REQUIRED,
        meta_batch_size: int = 20,
        seed: int = 1,
        goal_seed: int = 1,
        num_goals: int = 100,
        adaptation: FastAdaptation | None = None,
        meta_update: MetaUpdate | None = None,
        validation: Validation | None = None,
        final: FinalTable | None = None,
    ):
        name = "TespLearner"
        self.method = checks.instance(f"{name}.method", method, Method, "a method such as @TESP()")
        self.family = checks.instance(f"{name}.family", family, TaskFamily, "a task family such as @Wheeled()")
        require_tasks(f"{name}.family", family)
        self.meta_batch_size = checks.integer(f"{name}.meta_batch_size", meta_batch_size, minimum=1)
        self.seed = checks.integer(f"{name}.seed", seed, minimum=0, maximum=2**32 - 1)
        goal_seed = checks.integer(f"{name}.goal_seed", goal_seed, minimum=0, maximum=2**32 - 1)
        self._num_goals = checks.integer(f"{name}.num_goals", num_goals, minimum=1)
        if self.meta_batch_size > self._num_goals:
            raise UserError(
                f"{name}.meta_batch_size is {meta_batch_size}, more than the {num_goals} goals of the training set"
            )
        self.adaptation = _part("adaptation", adaptation, FastAdaptation)
        if not self.method.uses_encoder:
            self.adaptation.require_effect(self.method.name)
        self.meta_update = _part("meta_update", meta_update, MetaUpdate)
        self.validation = _part("validation", validation, Validation)
        self.final = _part("final", final, FinalTable)
        for part in (self.validation, self.final):
            if (part.num_goals or 0) > self._num_goals:
                raise UserError(
                    f"{type(part).__name__}.num_goals is {part.num_goals}, more than the {num_goals} goals of a set"
                )
        self.goal_sets: GoalSets = draw_task_sets(family, goal_seed, self._num_goals)
        self._task_stream = task_batch_stream(family, self.seed, self._num_goals)
        self.parameters: MetaParameters = self.initial_parameters()
        self._adam: AdamState = adam_init(self.parameters)
        self.iteration = 0
        self._env_steps = 0
        self._trajectories: list[Trajectory] = []
        self._last_key: Any = None

    def initial_parameters(self) -> MetaParameters:
        """The meta-parameters before training; a function of the seed."""
        return self.method.initial_parameters(self.seed, self.family.observation_dim, self.family.action_dim)

    def make_shard(self, num_tasks: int, adaptation: FastAdaptation) -> TespShard:
        """A shard for other numbers of tasks or copies than training's."""
        return TespShard(self.method, self.family, adaptation, self.meta_update, num_tasks)

    @property
    def num_units(self) -> int:
        """M."""
        return self.meta_batch_size

    def make_part(self, first: int, count: int) -> TespShard:
        """A shard for `count` tasks of the meta-batch; which ones, their indices say when they are given."""
        del first
        return self.make_shard(count, self.adaptation)

    @property
    def shards(self) -> Sequence[TespShard]:
        """The shards of this process."""
        return local_shards(self.pool)

    def draw_tasks(self) -> TaskBatch:
        """The next meta-batch: M distinct training tasks (section 3.2, step 1)."""
        chosen = draw_task_batch(self._task_stream, self._num_goals, self.meta_batch_size)
        return TaskBatch(self.goal_sets.train[chosen], np.arange(self.meta_batch_size))

    def run_iteration(self, report: Report) -> Metrics:
        """One meta-update and, when due, validation."""
        started = time.perf_counter()
        adaptations: list[Adaptation] = self.pool.collect(
            self.draw_tasks(), parameters=self.parameters, seed=self.seed, iteration=self.iteration, report=report
        )
        self._last_key = adaptations[0].key
        self._trajectories = adaptations[0].trajectories
        outer_started = time.perf_counter()
        best = self._outer_loop(adaptations, report)
        self.parameters, self._adam = best.parameters, best.adam
        outer_seconds = time.perf_counter() - outer_started
        self.iteration += 1
        steps = sum(adaptation.simulated_steps for adaptation in adaptations)
        self._env_steps += steps
        training_seconds = time.perf_counter() - started

        metrics = reporting.adaptation_metrics(adaptations)
        metrics |= {f"outer/{name}": value for name, value in best.info.items()}
        metrics["outer/selected"] = best.selected
        rates = {name: rate.numpy() for name, rate in self.parameters.rates.items()}
        metrics |= reporting.rate_metrics(rates, self.method.inner_lr)
        validation_started = time.perf_counter()
        validation, validation_steps = self._validate(report)
        metrics |= validation
        metrics |= {
            "env_steps/this_iteration": steps,
            "env_steps/total": self._env_steps,
            "env_steps/validation": validation_steps,
            "time/sampling": max(adaptation.seconds["sampling"] for adaptation in adaptations),
            "time/inner": max(adaptation.seconds["inner"] for adaptation in adaptations),
            "time/outer": outer_seconds,
            "time/meta_update": training_seconds,
            "time/validation": time.perf_counter() - validation_started,
            "time/steps_per_second": steps / training_seconds,
        }
        return metrics

    def _outer_loop(self, adaptations: list[Adaptation], report: Report) -> BestIterate:
        key = adaptations[0].key

        def evaluate(parameters: MetaParameters) -> tuple[MetaParameters, dict[str, float]]:
            sums, parts = self.pool.evaluate(key=key, parameters=parameters, what="outer_gradient")
            return sums, _finite_means(parts)

        def evaluate_last(parameters: MetaParameters) -> dict[str, float]:
            _, parts = self.pool.evaluate(key=key, parameters=parameters, what="outer_terms")
            return _finite_means(parts)

        settings = self.meta_update
        return best_iterate_loop(
            evaluate,
            self.parameters,
            self._adam,
            num_evaluations=settings.num_evaluations,
            learning_rate=settings.outer_lr,
            kl_limit=settings.kl_limit,
            num_tasks=self.meta_batch_size,
            rollback_adam=settings.rollback_adam,
            evaluate_last=evaluate_last,
            report=lambda index: report(f"outer evaluation {index + 1}/{settings.num_evaluations}"),
        )

    def _validate(self, report: Report) -> tuple[Metrics, int | None]:
        """Metrics of all goal sets (None where not due) and the environment steps that it took."""
        due = self.validation.is_due(self.iteration)
        metrics: Metrics = {}
        steps = 0
        for name in self.validation.goal_sets:
            rounds = None
            if due:
                result = adapt_to_goals(
                    self.pool,
                    self.parameters,
                    getattr(self.goal_sets, name)[: self.validation.num_goals],
                    seed=self.seed,
                    iteration=self.iteration,
                    phase=f"validation/{name}",
                    transition_noise=self.validation.noise_for(name),
                    report=report,
                )
                rounds = [reporting.pooled([episodes]) for episodes in result.rounds]
                steps += result.simulated_steps
            metrics |= reporting.validation_metrics(
                name, rounds, self.adaptation.inner_updates + 1, reporting.statistics(self.family.info_keys)
            )
        return metrics, steps if due else None

    def summary_line(self, metrics: Metrics) -> str:
        """Return per fast-update, KL and speed."""
        return reporting.summary_line(metrics)

    def figures(self) -> dict[str, Any]:
        """Paths of a few tasks of the latest meta-update, before and after adaptation."""
        return {"trajectories": reporting.trajectory_figure(self._trajectories)} if self._trajectories else {}

    def final_table(self, report: Report) -> list[dict[str, Any]]:
        """Pre- and post-adaptation returns on the goal sets, beside the untrained method and doing nothing."""
        return self.final.rows(self, report)

    def evaluate(self, request: EvaluationRequest, report: Report) -> EvaluationResult:
        """Adaptation to goals with the present parameters; see `tesp.evaluation`."""
        return evaluation.evaluate(self, request, report)

    def sample_rounds(self, request: EvaluationRequest, report: Report) -> SampledTask:
        """The rounds of one goal's adaptation; see `tesp.rendering`."""
        return rendering.sample_rounds(self, request, report)

    def crash_evidence(self) -> dict[str, np.ndarray]:
        """The latest batch and the parameters."""
        kept = self.pool.call("kept_arrays", key=self._last_key)
        return state_arrays.flatten("parameters", self.parameters) | by_shard(kept)

    def state(self) -> dict[str, np.ndarray]:
        """Parameters, Adam, the task stream, goal sets and counters."""
        return (
            state_arrays.flatten("parameters", self.parameters)
            | state_arrays.flatten("adam/first_moment", self._adam.first_moment)
            | state_arrays.flatten("adam/second_moment", self._adam.second_moment)
            | state_arrays.random_state_arrays("task_stream", self._task_stream)
            | {f"goals/{name}": np.asarray(goals) for name, goals in self.goal_sets._asdict().items()}
            | {
                "adam/step": np.asarray(self._adam.step, np.int64),
                "iteration": np.asarray(self.iteration, np.int64),
                "env_steps": np.asarray(self._env_steps, np.int64),
            }
        )

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Takes over what `state` returned.

        Raises:
            UserError: an array is missing, unexpected or of another shape; nothing was restored.
        """
        arrays = {name: np.asarray(value) for name, value in arrays.items()}
        state_arrays.require_same_arrays(arrays, self.state())
        self.parameters = state_arrays.unflatten("parameters", arrays, self.parameters)
        self._adam = AdamState(
            state_arrays.unflatten("adam/first_moment", arrays, self.parameters),
            state_arrays.unflatten("adam/second_moment", arrays, self.parameters),
            int(arrays["adam/step"]),
        )
        self._task_stream = state_arrays.random_state_from("task_stream", arrays)
        self.goal_sets = GoalSets(**{name: arrays[f"goals/{name}"] for name in self.goal_sets._fields})
        self.iteration = int(arrays["iteration"])
        self._env_steps = int(arrays["env_steps"])


def _finite_means(parts: Sequence[OuterTerms]) -> dict[str, float]:
    """The means of the outer loss's terms over all tasks, from those of every shard's tasks.

    Raises:
        NonFiniteError: one is not a finite number. A bad gradient shows in the next evaluation's terms; selection alone
            would pass over it in silence.
    """
    terms = [np.concatenate(values) for values in zip(*parts, strict=True)]
    scalars = {
        name: float(np.mean(values, dtype=np.float64)) for name, values in zip(parts[0]._fields, terms, strict=True)
    }
    for name, value in scalars.items():
        if not math.isfinite(value):
            raise NonFiniteError(f"the outer loss's {name} is {value}")
    return scalars


def _part(name: str, value: Any, kind: type) -> Any:
    """`value`, or the default of its kind."""
    if value is None:
        return kind()
    return checks.instance(f"TespLearner.{name}", value, kind, f"@{kind.__name__}()")
