"""What a video of the TESP family shows: the rounds of one goal's adaptation (TESP specification, section 3.2)."""

import dataclasses
from typing import TYPE_CHECKING, Any, cast

from metarl.experiment.learner import EvaluationRequest, Report
from metarl.rendering.rounds import Round, SampledTask, fast_update_label
from metarl.sampling.noise import NoiseKey
from metarl.sampling.sampler import Sampler
from metarl.sampling.steps import Batch
from metarl.scaling.shard import TaskBatch
from tesp.evaluation import goal_groups

if TYPE_CHECKING:
    from tesp.learner import TespLearner

_PHASE = "render"


class _KeepingSampler:
    """A sampler that keeps its rounds and their keys."""

    def __init__(self, sampler: Sampler):
        self._sampler = sampler
        self.rounds: list[tuple[NoiseKey, Batch]] = []

    def collect(self, act_arguments: Any, tasks: Any, noise: NoiseKey, *arguments: Any, **options: Any) -> Batch:
        batch = self._sampler.collect(act_arguments, tasks, noise, *arguments, **options)
        self.rounds.append((noise, batch))
        return batch


def sample_rounds(learner: "TespLearner", request: EvaluationRequest, report: Report) -> SampledTask:
    """Adapts to one goal as in training and returns its rounds after 0 .. K fast-updates, without the warm-up.

    The goal is that of the request, by default the first of D'. There is no transition noise.

    Raises:
        UserError: the goal does not fit the family.
    """
    if not request.tasks:
        request = dataclasses.replace(request, task_sets=("test_1",), num_tasks=1)
    task = goal_groups(learner, request)[0].goals[0]
    shard = learner.make_shard(1, learner.adaptation.resized(inner_updates=request.fast_updates))
    keeping = _KeepingSampler(shard.sampler)
    shard.sampler = cast(Sampler, keeping)
    seed = learner.seed if request.seed is None else request.seed
    batch = TaskBatch(task[None], [0])  # type: ignore[arg-type]
    adaptation = shard.collect(
        learner.parameters, batch, seed, learner.iteration, phase=_PHASE, keep=False, report=report
    )
    kept = keeping.rounds[-len(adaptation.rounds) :]
    return SampledTask(task, [Round(fast_update_label(k), batch, key) for k, (key, batch) in enumerate(kept)])
