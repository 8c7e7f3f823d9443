"""What a video of a method with policy or planner shows: its real rounds on one task, before and after adaptation."""

import dataclasses
from typing import TYPE_CHECKING

from mbmpo.adapting import real_shard
from mbmpo.evaluation import task_groups
from metarl.experiment.errors import UserError
from metarl.experiment.learner import EvaluationRequest, Report
from metarl.rendering.rounds import Round, SampledTask, fast_update_label
from metarl.sampling.noise import NoiseKey
from metarl.scaling.shard import TaskBatch
from metarl.simulation.task_family import TaskFamily

if TYPE_CHECKING:
    from mbmpo.mbmpc import MBMPCLearner
    from mbmpo.policy_learner import PolicyLearner

_PHASE = "render"


def sample_rounds(learner: "PolicyLearner", request: EvaluationRequest, report: Report) -> SampledTask:
    """Adapts theta to real rollouts of one task; returns the rounds after 0 .. K inner updates.

    The task is that of the request, by default one draw of the family.

    Raises:
        UserError: the request does not fit the learner.
    """
    tasks, seed = _task(learner, request)
    updates = learner.inner_updates if request.fast_updates is None else request.fast_updates
    if updates and not learner.inner_updates:
        raise UserError(f"--fast_updates={updates}: {type(learner).__name__} does not adapt; leave it at 0")
    report(f"sampling and {updates} updates")
    shard, collector = real_shard(learner, 1, inner_updates=updates, remember=True)
    shard.collect(learner.parameters, tasks, seed, learner.iteration, phase=_PHASE, keep=False)
    sampled = [
        Round(
            fast_update_label(k) if learner.inner_updates else "policy",
            batch,
            NoiseKey(seed, learner.iteration, f"{_PHASE}/phase_{k}", tasks.indices),  # as `MetaShard.collect` says
        )
        for k, batch in enumerate(collector.forget())
    ]
    return SampledTask(tasks.tasks[0], sampled)


def sample_planned_round(learner: "MBMPCLearner", request: EvaluationRequest, report: Report) -> SampledTask:
    """Returns one planned real rollout with the learner's present models.

    Raises:
        UserError: fast-updates are asked for, or a task that the family does not have.
    """
    if request.fast_updates:
        raise UserError(f"--fast_updates={request.fast_updates}: MBMPCLearner plans and does not adapt; leave it at 0")
    tasks, seed = _task(learner, request)
    batch = learner.planned_rollouts(tasks, seed, _PHASE, report)
    return SampledTask(
        tasks.tasks[0], [Round("planned", batch, NoiseKey(seed, learner.iteration, _PHASE, tasks.indices))]
    )


def _task(learner: "PolicyLearner | MBMPCLearner", request: EvaluationRequest) -> tuple[TaskBatch, int]:
    """The task to show, M = 1, and the seed."""
    family: TaskFamily = learner.family
    if request.tasks and not family.task_dim:
        raise UserError(f"--goal: {family.name} has a single task, which takes no numbers; leave --goal out")
    if not request.tasks:
        request = dataclasses.replace(request, num_tasks=1)
    (tasks,) = task_groups(learner, request).values()
    return tasks, learner.seed if request.seed is None else request.seed
