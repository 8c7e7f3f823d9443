"""MAML on real tasks with TRPO, PPO or VPG, and its case without adaptation (MB-MPO specification, section 6.4).

One iteration: draw M tasks; K times { R real rollouts per task; one inner update of every task }; R rollouts of the
adapted policies; one meta-update on them, through the inner updates. The objective is that of MB-MPO (section 4); a
model is not involved, and families without batch reward do.

Shapes: `M` tasks, `R` copies per task, `H` horizon, `K` inner updates.
"""

from collections.abc import Mapping
from typing import Any

import gin
import numpy as np

from mbmpo import evaluation, rendering, reporting
from mbmpo.adapting import real_shard
from mbmpo.finite import require_finite
from mbmpo.meta_objective import RandomKey
from mbmpo.meta_step import MetaStep, make_objective, pooled_statistics, require_finite_steps, slowest
from mbmpo.meta_updates import MetaUpdate
from mbmpo.policies import GaussianMLPPolicy, Weights
from mbmpo.processing import Processing
from mbmpo.real_data import draw_tasks
from mbmpo.settings import InnerAdaptation, part
from metarl.experiment import checks, state_arrays
from metarl.experiment.errors import UserError
from metarl.experiment.learner import EvaluationRequest, EvaluationResult, Metrics, Report
from metarl.rendering.rounds import SampledTask
from metarl.sampling.quota import STOP_RULES
from metarl.scaling.shard import Shard
from metarl.scaling.sharded_learner import ShardedLearner, by_shard
from metarl.simulation.task_family import TaskFamily


@gin.configurable(module="mbmpo")
class MAMLLearner(ShardedLearner):
    """Meta-trains a policy on real tasks.

    Args:
        policy: `@GaussianMLPPolicy()`.
        family: the tasks: `@HalfCheetahDirection()`, ...
        meta_update: `@MetaTRPO()`, `@MetaPPO()` or `@MetaVPG()`.
        meta_batch_size: M, tasks per iteration.
        rollouts_per_task: R, rollouts of a task per phase. The original steps one copy R times in a row; R copies side
            by side see the same distribution, but for the stop rule where episodes end early.
        horizon: H.
        seed: of everything.
        adaptation: the inner updates; default `InnerAdaptation()`.
        processing: baseline and advantages; default `Processing()`.
        num_threads: simulation threads; default: the cores this process may use.
        stop_rule: "global": a phase ends when the finished episodes of all tasks hold M * R * H steps; "per_task": each
            task by itself; "truncate": every copy makes H steps, and running episodes are cut and kept (O-23). Only the
            last two let tasks whose episodes end early be spread over workers.
    """

    changeable = frozenset({"MAMLLearner.num_threads"})

    def __init__(
        self,
        *,
        policy: GaussianMLPPolicy = gin.REQUIRED,
        family: TaskFamily = gin.REQUIRED,
        meta_update: MetaUpdate = gin.REQUIRED,
        meta_batch_size: int = 40,
        rollouts_per_task: int = 20,
        horizon: int = 100,
        seed: int = 1,
        adaptation: InnerAdaptation | None = None,
        processing: Processing | None = None,
        num_threads: int | None = None,
        stop_rule: str = "global",
    ):
        name = "MAMLLearner"
        self.policy = checks.instance(f"{name}.policy", policy, GaussianMLPPolicy, "@GaussianMLPPolicy()")
        self.family = checks.instance(f"{name}.family", family, TaskFamily, "a task family such as @HalfCheetah()")
        self.meta_update = checks.instance(f"{name}.meta_update", meta_update, MetaUpdate, "such as @MetaTRPO()")
        self.num_tasks = checks.integer(f"{name}.meta_batch_size", meta_batch_size, minimum=1)
        self.rollouts_per_task = checks.integer(f"{name}.rollouts_per_task", rollouts_per_task, minimum=1)
        self.horizon = checks.integer(f"{name}.horizon", horizon, minimum=2)
        self.seed = checks.integer(f"{name}.seed", seed, minimum=0, maximum=2**32 - 1)
        self.adaptation = part(f"{name}.adaptation", adaptation, InnerAdaptation)
        self.processing = part(f"{name}.processing", processing, Processing)
        self._num_threads = None if num_threads is None else checks.integer(f"{name}.num_threads", num_threads, 1)
        self._stop_rule = checks.choice(f"{name}.stop_rule", stop_rule, STOP_RULES)
        self.inner_updates = self.adaptation.inner_updates
        self.objective = make_objective(self.policy, self.meta_update, self.adaptation)
        self.parameters = self.initial_parameters()
        self._meta_state = self.meta_update.initial_state(self.parameters, self.num_tasks, self.inner_updates)
        self.iteration = 0
        self._env_steps = 0

    def initial_parameters(self) -> Weights:
        """Theta before training, a function of the seed."""
        weights = self.policy.initial_weights(self.seed, self.family.observation_dim, self.family.action_dim)
        return self.objective.initial_parameters(weights)

    @property
    def num_units(self) -> int:
        """M."""
        return self.num_tasks

    def make_part(self, first: int, count: int) -> Shard:
        """A shard for `count` tasks of the meta-batch; which ones, their indices say when they are given."""
        del first
        return real_shard(self, count, num_threads=self._num_threads, stop_rule=self._stop_rule)[0]

    def require_split(self, num_shards: int) -> None:
        """Passes if the tasks can be spread over so many shards.

        Raises:
            UserError: there are too few, or their episodes end at different times.
        """
        super().require_split(num_shards)
        if num_shards > 1 and self.family.ends_early and self._stop_rule == "global":
            raise UserError(
                f"episodes of {self.family.name} end at different times; to spread its tasks over workers, let every "
                "task stop by itself: MAMLLearner.stop_rule = 'per_task'"
            )

    def run_iteration(self, report: Report) -> Metrics:
        """One meta-update on real tasks."""
        clock = reporting.Stopwatch()
        step = MetaStep(self.pool, self.meta_update)
        tasks = draw_tasks(self.family, self.num_tasks, self.seed, self.iteration)
        report("real sampling and adaptation")
        adaptations = step.adapt(self.parameters, tasks, self.seed, self.iteration, "train")
        require_finite_steps("the real steps", adaptations)
        steps = sum(adaptation.account.env_steps for adaptation in adaptations)
        self._env_steps += steps
        report("meta-update")
        outer = reporting.Stopwatch()
        self.parameters, self._meta_state, info = step.update(
            self.parameters,
            self._meta_state,
            adaptations,
            report,
            RandomKey(self.seed, self.iteration, "train/update"),
        )
        require_finite("the policy after the meta-update", self.parameters)
        self.iteration += 1
        metrics: Metrics = {}
        for update in range(self.inner_updates + 1):
            statistics = pooled_statistics(adaptations, update)
            name = "pre_update" if update == 0 else "post_update"
            metrics |= reporting.path_metrics(
                name if update in (0, self.inner_updates) else f"update_{update}", statistics
            )
        metrics |= reporting.update_metrics([info], self.meta_update.info_names)
        metrics["inner/mean_step_size"] = reporting.mean_step_size(self.parameters, self.adaptation.inner_lr)
        seconds = slowest(adaptations)
        return metrics | {
            "env_steps/this_iteration": steps,
            "env_steps/total": self._env_steps,
            "time/env_sampling": seconds["sampling"],
            "time/processing": seconds["processing"],
            "time/inner": seconds["inner"],
            "time/outer": outer.elapsed(),
            "time/iteration": clock.elapsed(),
        }

    def summary_line(self, metrics: Metrics) -> str:
        """Returns before and after adaptation, KL and speed."""
        return reporting.summary_line(metrics)

    def state(self) -> dict[str, np.ndarray]:
        """Theta, the meta-update's state and counters."""
        return state_arrays.flatten("", self._whole_state())

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Takes over what `state` returned.

        Raises:
            UserError: an array is missing, unexpected or of another shape; nothing was restored.
        """
        arrays = {name: np.asarray(value) for name, value in arrays.items()}
        mine = self._whole_state()
        state_arrays.require_same_arrays(arrays, state_arrays.flatten("", mine))
        state = state_arrays.unflatten("", arrays, mine)
        self.parameters, self._meta_state = state["theta"], state["meta_update"]
        self.iteration, self._env_steps = state["counters"]["iteration"], state["counters"]["env_steps"]

    def _whole_state(self) -> dict[str, Any]:
        counters = {"iteration": self.iteration, "env_steps": self._env_steps}
        return {"theta": self.parameters, "meta_update": self._meta_state, "counters": counters}

    def crash_evidence(self) -> dict[str, np.ndarray]:
        """The latest phases and theta."""
        return by_shard(self.pool.call("kept_arrays")) | self.state()

    def final_table(self, report: Report) -> list[dict[str, Any]]:
        """Returns of the untrained and the trained policy before and after adaptation."""
        return evaluation.final_table(self, report)

    def evaluate(self, request: EvaluationRequest, report: Report) -> EvaluationResult:
        """Adaptation to real tasks; see `mbmpo.evaluation`."""
        return evaluation.evaluate(self, request, report)

    def sample_rounds(self, request: EvaluationRequest, report: Report) -> SampledTask:
        """Real rounds of one task; see `mbmpo.rendering`."""
        return rendering.sample_rounds(self, request, report)
