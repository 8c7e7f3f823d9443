"""MAML on real tasks with TRPO, PPO or VPG, and its case without adaptation (MB-MPO specification, section 6.4).

One iteration: draw M tasks; K times { R real rollouts per task; one inner update of every task }; R rollouts of the
adapted policies; one meta-update on them, through the inner updates. The objective is that of MB-MPO (section 4); a
model is not involved, and families without batch reward do.

Shapes: `M` tasks, `R` rollouts per task, `H` horizon, `K` inner updates.
"""

from collections.abc import Mapping
from typing import Any

import gin
import numpy as np

from mbmpo import reporting
from mbmpo.adapting import real_shard
from mbmpo.finite import require_finite
from mbmpo.meta_objective import RandomKey
from mbmpo.meta_step import (
    MetaStep,
    make_objective,
    pooled_statistics,
    require_finite_steps,
    sampling_seconds,
    slowest,
)
from mbmpo.meta_updates import MetaUpdate
from mbmpo.policies import GaussianMLPPolicy
from mbmpo.policy_learner import RealTaskLearner
from mbmpo.processing import Processing
from mbmpo.real_data import copies_side_by_side, draw_tasks
from mbmpo.settings import InnerAdaptation, part
from metarl.experiment import checks
from metarl.experiment.errors import UserError
from metarl.experiment.learner import Metrics, Report
from metarl.sampling.quota import make_quota
from metarl.scaling.shard import Shard
from metarl.scaling.sharded_learner import ShardedLearner, by_shard
from metarl.simulation.task_family import TaskFamily


@gin.configurable(module="mbmpo")
class MAMLLearner(RealTaskLearner, ShardedLearner):
    """Meta-trains a policy on real tasks.

    Args:
        policy: `@GaussianMLPPolicy()`.
        family: the tasks: `@HalfCheetahDirection()`, ...
        meta_update: `@MetaTRPO()`, `@MetaPPO()` or `@MetaVPG()`.
        meta_batch_size: M, tasks per iteration.
        rollouts_per_task: R, rollouts of a task per phase.
        horizon: H.
        seed: of everything.
        adaptation: the inner updates; default `InnerAdaptation()`.
        processing: baseline and advantages; default `Processing()`.
        num_threads: simulation threads; default: the cores this process may use.
        stop_rule: "global": a phase ends when the finished episodes of all tasks hold M * R * H steps; "per_task": each
            task by itself; "truncate": after M * R * H steps, and running episodes are cut and kept (O-23). Only the
            last two let tasks whose episodes end early be spread over workers.
        copies_per_task: copies that gather the R * H steps of a task, at most R; None: R. The original has 1, which
            makes its episodes one after the other (section 6.4). Without early ends, R copies side by side gather the
            same distribution, in less time. With them they do not: as many episodes are running when the round ends,
            mostly long ones, and those are lost.
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
        copies_per_task: int | None = None,
    ):
        name = "MAMLLearner"
        super().__init__(
            policy=policy,
            family=family,
            num_tasks=checks.integer(f"{name}.meta_batch_size", meta_batch_size, minimum=1),
            rollouts_per_task=checks.integer(f"{name}.rollouts_per_task", rollouts_per_task, minimum=1),
            horizon=horizon,
            seed=seed,
            processing=processing,
            num_threads=num_threads,
            stop_rule=stop_rule,
        )
        self._copies_per_task: int | None = None
        if copies_per_task is not None:
            self._copies_per_task = checks.integer(
                f"{name}.copies_per_task", copies_per_task, minimum=1, maximum=rollouts_per_task
            )
        self.meta_update = checks.instance(f"{name}.meta_update", meta_update, MetaUpdate, "such as @MetaTRPO()")
        self.adaptation = part(f"{name}.adaptation", adaptation, InnerAdaptation)
        self.inner_updates = self.adaptation.inner_updates
        self.meta_update.require_rows(self._capacity())
        self.objective = make_objective(self.policy, self.meta_update, self.adaptation)
        self.parameters = self.initial_parameters()
        self._meta_state = self.meta_update.initial_state(self.parameters, self.num_tasks, self.inner_updates)

    def _capacity(self) -> int:
        """S, rows of a task and phase."""
        rows = self.rollouts_per_task * self.horizon
        copies = copies_side_by_side(self.rollouts_per_task, self.copies_per_task)
        quota = make_quota(
            self.stop_rule, self.num_tasks, copies, self.horizon, self.family.ends_early, self.num_tasks * rows
        )
        return quota.capacity

    @property
    def num_units(self) -> int:
        """M."""
        return self.num_tasks

    @property
    def copies_per_task(self) -> int | None:
        """Copies that make the rollouts of a task; None: R."""
        return self._copies_per_task

    def make_part(self, first: int, count: int) -> Shard:
        """A shard for `count` tasks of the meta-batch; which ones, their indices say when they are given."""
        del first
        return real_shard(self, count)[0]

    def require_split(self, num_shards: int) -> None:
        """Passes if the tasks can be spread over so many shards.

        Raises:
            UserError: there are too few, or their episodes end at different times.
        """
        super().require_split(num_shards)
        if num_shards > 1 and self.family.ends_early and self.stop_rule == "global":
            raise UserError(
                f"episodes of {self.family.name} end at different times; to spread its tasks over workers, let every "
                "task stop by itself: MAMLLearner.stop_rule = 'per_task'"
            )

    def run_iteration(self, report: Report) -> Metrics:
        """One meta-update on real tasks."""
        clock = self._iteration_clock()
        step = MetaStep(self.pool, self.meta_update)
        tasks = draw_tasks(self.family, self.num_tasks, self.seed, self.iteration)
        adaptations = step.adapt(
            self.parameters,
            tasks,
            self.seed,
            self.iteration,
            "train",
            report=lambda phrase: report(f"real sampling and adaptation, {phrase}"),
        )
        require_finite_steps("the real steps", adaptations)
        counted = self._counted(sum(adaptation.account.env_steps for adaptation in adaptations))
        report("meta-update")
        # As in MB-MPO, the column is of before the meta-update.
        step_size = reporting.mean_step_size(self.parameters, self.adaptation.inner_lr)
        outer = reporting.Stopwatch()
        self.parameters, self._meta_state, info = step.update(
            self.parameters,
            self._meta_state,
            adaptations,
            report,
            RandomKey(self.seed, self.iteration, "train/update"),
        )
        outer_seconds = outer.elapsed()
        require_finite("the policy after the meta-update", self.parameters)
        self.iteration += 1
        metrics: Metrics = {}
        for update in range(self.inner_updates + 1):
            name = {0: "pre_update", self.inner_updates: "post_update"}.get(update, f"update_{update}")
            metrics |= reporting.path_metrics(name, pooled_statistics(adaptations, update))
            metrics |= reporting.sampler_metrics(name, sampling_seconds(adaptations, update))
        metrics |= reporting.update_metrics([info], self.meta_update.info_names)
        metrics["inner/mean_step_size"] = step_size
        seconds = slowest(adaptations)
        return metrics | {
            **counted,
            "time/env_sampling": seconds["sampling"],
            "time/processing": seconds["processing"],
            "time/inner": seconds["inner"],
            "time/outer": outer_seconds,
            **self._clock_metrics(clock),
        }

    def _own_state(self) -> dict[str, Any]:
        return {"meta_update": self._meta_state}

    def _take_own_state(self, state: Mapping[str, Any]) -> None:
        self._meta_state = state["meta_update"]

    def _latest_steps(self) -> dict[str, np.ndarray]:
        return by_shard(self.pool.call("kept_arrays"))
