"""What MB-MPO and ME-TRPO share: a policy that is improved inside the models, on shards that imagine.

Shapes: `M` tasks of the real rounds, `R` copies per task, `H` horizon.
"""

from typing import Any

from mbmpo.dynamics import DynamicsEnsemble
from mbmpo.imagination import Imagination
from mbmpo.model_based import ModelBasedLearner
from mbmpo.policies import GaussianMLPPolicy, Weights
from mbmpo.policy_learner import PolicyLearner
from mbmpo.processing import Processing
from mbmpo.real_data import policy_sampler, tiled
from mbmpo.reporting import step_progress
from mbmpo.settings import ModelFit, RealData, part
from mbmpo.transitions import Transitions
from metarl.experiment import checks
from metarl.experiment.errors import UserError
from metarl.experiment.learner import Report
from metarl.sampling.noise import NoiseKey
from metarl.sampling.sampler import Sampler
from metarl.sampling.steps import Batch
from metarl.scaling.shard import TaskBatch
from metarl.scaling.sharded_learner import ShardedLearner
from metarl.simulation.imaginable import ImaginableFamily

_OLD, _NEW = 0.8, 0.2


class ImaginingLearner(ModelBasedLearner, PolicyLearner, ShardedLearner):
    """A model-based method with a policy; real data are gathered and models are fitted in the learner's process.

    Args:
        policy: acts.
        family: the tasks, with a batch reward.
        ensemble: the models.
        real: how real data are gathered.
        fit: how long the models are fitted.
        processing: baseline and advantages; None for the default.
        seed: of everything.
        num_tasks: M of the real rounds.
        first_data: "random" actions in the first iteration, or those of the "policy".

    Attributes:
        unit: what shards hold: a "task" or a "row".
        stop_rule_setting: the binding that lets every unit stop by itself.
        imagination: of all units.
    """

    unit: str
    stop_rule_setting: str
    imagination: Imagination
    family: ImaginableFamily

    def __init__(
        self,
        *,
        policy: GaussianMLPPolicy,
        family: ImaginableFamily,
        ensemble: DynamicsEnsemble,
        real: RealData | None,
        fit: ModelFit | None,
        processing: Processing | None,
        seed: int,
        num_tasks: int,
        first_data: str = "random",
    ):
        super().__init__(
            family=family,
            ensemble=ensemble,
            real=real,
            fit=fit,
            seed=seed,
            num_tasks=num_tasks,
            first_data=first_data,
        )
        name = type(self).__name__
        self.policy = checks.instance(f"{name}.policy", policy, GaussianMLPPolicy, "@GaussianMLPPolicy()")
        self.processing = part(f"{name}.processing", processing, Processing)
        self.gamma = self.processing.gamma
        self._sampler: Sampler | None = None

    def require_split(self, num_shards: int) -> None:
        """Passes if what is imagined can be spread over so many shards.

        Raises:
            UserError: there are too few tasks or rows, their rollouts end at different times, or the models couple
                them.
        """
        super().require_split(num_shards)
        if num_shards > 1 and self.ensemble.couples_rows:
            raise UserError(f"{type(self.ensemble).__name__}'s smooth mask needs all rows at one place: one worker")
        if num_shards > 1 and not self.imagination.splits:
            raise UserError(
                f"imagined rollouts of {self.family.name} end at different times; to spread its {self.unit}s over "
                f"workers, let every {self.unit} stop by itself: {self.stop_rule_setting} = 'per_task'"
            )

    def _real_sampler(self) -> Sampler:
        """Made when first needed, so that configuring steps no simulation."""
        if self._sampler is None:
            self._sampler = policy_sampler(
                self.policy,
                self.family,
                self.num_tasks,
                self.real.rollouts_per_task,
                self.real.horizon,
                num_threads=self.real.num_threads,
                record_final=self.real.store_last_transition,
                stop_rule=self.real.stop_rule,
            )
        return self._sampler

    def _collect_real(self, tasks: TaskBatch, report: Report) -> Batch:
        if self.real.reset_policy_std and self.iteration:
            self.parameters = self.policy.with_std(self.parameters, 1.0)
        weights = self._acting_weights(tasks, report)
        key = NoiseKey(self.seed, self.iteration, "real", tasks.indices)
        sampler = self._real_sampler()
        progress = step_progress(report, "real sampling, step", self.steps_per_round)
        batch = sampler.collect(weights, tasks.tasks, key, progress=progress)
        self._watch(sampler.seconds)
        return batch

    def _acting_weights(self, tasks: TaskBatch, report: Report) -> Weights:
        """Weights of the policies that gather real data, [M, ...]."""
        del tasks, report
        return tiled(self.objective.policy_weights(self.parameters), self.num_tasks)

    def _give_models(self, buffer: Transitions | None) -> Any:
        """Gives the shards the fitted models, and the buffer if rollouts start from it; returns the models' weights."""
        effective = self.ensemble.effective(self.models)
        self.pool.call("use", effective=effective, buffer=buffer)
        return effective


class RollingReturn:
    """The rolling mean of the imagined return over an iteration's updates (MB-MPO specification, 1.2, step 6c)."""

    def __init__(self) -> None:
        self._mean: float | None = None

    def falls(self, value: float) -> bool:
        """Takes in the next return; whether the mean is lower than before."""
        before = self._mean
        self._mean = value if before is None else _OLD * before + _NEW * value
        return before is not None and self._mean < before
