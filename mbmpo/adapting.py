"""Shards that adapt a policy to real tasks.

Shapes: `M` tasks.
"""

from typing import TYPE_CHECKING

from mbmpo.real_data import RealCollector, policy_sampler
from mbmpo.shard import MetaShard

if TYPE_CHECKING:
    from mbmpo.policy_learner import PolicyLearner


def real_shard(
    learner: "PolicyLearner",
    num_tasks: int,
    *,
    rollouts_per_task: int | None = None,
    inner_updates: int | None = None,
    remember: bool = False,
) -> tuple[MetaShard, RealCollector]:
    """A shard that adapts M tasks to real data, and its collector; None: as in training.

    Rounds end, and copies share the rollouts of a task, as in training.
    """
    rollouts = learner.rollouts_per_task if rollouts_per_task is None else rollouts_per_task
    updates = learner.inner_updates if inner_updates is None else inner_updates
    sampler = policy_sampler(
        learner.policy,
        learner.family,
        num_tasks,
        rollouts,
        learner.horizon,
        num_threads=learner.num_threads,
        stop_rule=learner.stop_rule,
        copies_per_task=learner.copies_per_task,
    )
    collector = RealCollector(sampler, num_tasks * rollouts * learner.horizon, remember=remember)
    shard = MetaShard(learner.objective, learner.processing, collector, num_tasks, updates, learner.horizon)
    return shard, collector
