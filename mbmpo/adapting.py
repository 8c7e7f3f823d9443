"""What all methods with a Gaussian policy share: theta, its adaptation to real tasks, and the state of both.

Shapes: `M` tasks, `R` copies per task, `H` horizon, `K` inner updates.
"""

from typing import Protocol

from mbmpo.meta_objective import MetaObjective
from mbmpo.meta_updates import MetaUpdate
from mbmpo.policies import GaussianMLPPolicy, Weights
from mbmpo.processing import Processing
from mbmpo.real_data import RealCollector, policy_sampler
from mbmpo.shard import MetaShard
from metarl.simulation.task_family import TaskFamily


class PolicyLearner(Protocol):
    """A learner whose policy can be adapted to real tasks: what `mbmpo.evaluation` needs to know.

    Attributes:
        policy, objective, meta_update, processing: as configured.
        parameters: theta.
        inner_updates: K of training; 0 for methods that do not adapt.
        seed, iteration: of the run.
    """

    policy: GaussianMLPPolicy
    objective: MetaObjective
    meta_update: MetaUpdate
    processing: Processing
    parameters: Weights
    inner_updates: int
    seed: int
    iteration: int

    @property
    def family(self) -> TaskFamily:
        """The tasks."""

    @property
    def rollouts_per_task(self) -> int:
        """R."""

    @property
    def horizon(self) -> int:
        """H."""

    def initial_parameters(self) -> Weights:
        """Theta before training."""


def real_shard(
    learner: PolicyLearner,
    num_tasks: int,
    *,
    rollouts_per_task: int | None = None,
    inner_updates: int | None = None,
    num_threads: int | None = None,
    stop_rule: str = "global",
    remember: bool = False,
) -> tuple[MetaShard, RealCollector]:
    """A shard that adapts M tasks to real data, and its collector; None: as in training."""
    rollouts = learner.rollouts_per_task if rollouts_per_task is None else rollouts_per_task
    updates = learner.inner_updates if inner_updates is None else inner_updates
    sampler = policy_sampler(
        learner.policy,
        learner.family,
        num_tasks,
        rollouts,
        learner.horizon,
        num_threads=num_threads,
        stop_rule=stop_rule,
    )
    collector = RealCollector(sampler, remember=remember)
    shard = MetaShard(learner.objective, learner.processing, collector, num_tasks, updates, learner.horizon)
    return shard, collector
