"""ME-TRPO as MB-MPO's authors re-implemented it: TRPO on steps of randomly chosen models (specification, section 6.1).

One iteration: real data with the policy (random actions in the first), all of it kept -> fit the models ->
`update_steps` times { imagine a batch in which every row draws a new model at every step; one TRPO step with the exact
Hessian-vector product }. There is no adaptation, and no stopping rule over models; Kurutach et al.'s is an option.

Shapes: `M` tasks (here copies of the real system), `n` imagined rows, `S` steps, `E` models.
"""

from collections.abc import Mapping
from typing import Any

import gin
import numpy as np

from mbmpo import evaluation, rendering, reporting
from mbmpo.dynamics import DynamicsEnsemble
from mbmpo.finite import require_finite
from mbmpo.imagination import Imagination
from mbmpo.meta_updates import TRPO
from mbmpo.model_based import ModelBasedLearner
from mbmpo.plain import PlainUpdate
from mbmpo.plain_shard import PlainShard
from mbmpo.plain_step import PlainStep
from mbmpo.policies import GaussianMLPPolicy, Weights
from mbmpo.processing import Processing
from mbmpo.real_data import policy_sampler, tiled
from mbmpo.settings import ModelFit, RealData, part
from metarl.experiment import checks
from metarl.experiment.errors import UserError
from metarl.experiment.learner import EvaluationRequest, EvaluationResult, Metrics, Report
from metarl.rendering.rounds import SampledTask
from metarl.sampling.noise import NoiseKey
from metarl.sampling.steps import Batch
from metarl.scaling.shard import TaskBatch
from metarl.scaling.sharded_learner import ShardedLearner
from metarl.simulation.imaginable import ImaginableFamily

_OLD, _NEW = 0.8, 0.2  # as MB-MPO's rolling mean of imagined returns
STOPPING = ("none", "reward", "validation")


@gin.configurable(module="mbmpo")
class METRPOLearner(ModelBasedLearner, ShardedLearner):
    """Trains one policy inside an ensemble of learned models.

    Args:
        policy: `@GaussianMLPPolicy()`.
        family: the system: `@HalfCheetah()`, ...
        ensemble: the models: `@DynamicsEnsemble()`.
        update: `@TRPO()`.
        copies: M, copies of the real system; a round takes M * R * H steps.
        update_steps: TRPO steps per iteration.
        imagined_steps: asked for per TRPO step; whole sweeps of at most 100 rows are made, so that 50,000 of horizon
            200 become 60,000.
        imagined_horizon: H of imagined rollouts; None: the real one.
        clip_observation: limit of predicted observations' entries; None for none, as the original.
        stopping: when an iteration's TRPO steps end early: "none", as the scripts; "reward": the rolling mean of the
            imagined return falls; "validation": Kurutach et al.'s rule, every `check_every` steps the policy is
            evaluated in every model by itself and goes on only while `improved_share` of the models improve (O-21).
        check_every: TRPO steps between two such evaluations.
        improved_share: of the models.
        validation_rollouts: rollouts per model of such an evaluation.
        first_data: "random" actions or the "policy" in the first iteration (O-24).
        stop_rule: "global": imagined rows go on until the finished rollouts of all hold the steps asked for;
            "per_task": each row, ME-TRPO's task, by itself, which lets rows that end early be spread over workers.
        seed: of everything.
        real: real data; default `RealData()` without a limit of the buffer, as the original keeps all data.
        fit: of the models; default `ModelFit()`.
        processing: baseline and advantages; default `Processing()`.
    """

    def __init__(
        self,
        *,
        policy: GaussianMLPPolicy = gin.REQUIRED,
        family: ImaginableFamily = gin.REQUIRED,
        ensemble: DynamicsEnsemble = gin.REQUIRED,
        update: TRPO = gin.REQUIRED,
        copies: int = 20,
        update_steps: int = 30,
        imagined_steps: int = 50_000,
        imagined_horizon: int | None = None,
        clip_observation: float | None = None,
        stopping: str = "none",
        check_every: int = 5,
        improved_share: float = 0.7,
        validation_rollouts: int = 20,
        first_data: str = "random",
        stop_rule: str = "global",
        seed: int = 1,
        real: RealData | None = None,
        fit: ModelFit | None = None,
        processing: Processing | None = None,
    ):
        name = "METRPOLearner"
        copies = checks.integer(f"{name}.copies", copies, minimum=1)
        super().__init__(
            family=family,
            ensemble=ensemble,
            real=RealData(buffer_capacity=None) if real is None else real,
            fit=fit,
            seed=seed,
            num_tasks=copies,
            first_data=checks.choice(f"{name}.first_data", first_data, ("random", "policy")),
        )
        self.policy = checks.instance(f"{name}.policy", policy, GaussianMLPPolicy, "@GaussianMLPPolicy()")
        self.meta_update = checks.instance(f"{name}.update", update, TRPO, "@TRPO()")
        self.update_steps = checks.integer(f"{name}.update_steps", update_steps, minimum=1)
        self.stopping = checks.choice(f"{name}.stopping", stopping, STOPPING)
        self.check_every = checks.integer(f"{name}.check_every", check_every, minimum=1)
        self.improved_share = checks.real(f"{name}.improved_share", improved_share, 0.0, 1.0)
        validation_rollouts = checks.integer(f"{name}.validation_rollouts", validation_rollouts, minimum=1)
        self.processing = part(f"{name}.processing", processing, Processing)
        horizon = self.real.horizon
        if imagined_horizon is not None:
            horizon = checks.integer(f"{name}.imagined_horizon", imagined_horizon, minimum=1)
        if clip_observation is not None:
            clip_observation = checks.real(f"{name}.clip_observation", clip_observation, minimum=0.0)
        self._stop_rule = checks.choice(f"{name}.stop_rule", stop_rule, ("global", "per_task"))
        self._imagined_horizon, self._clip_observation = horizon, clip_observation
        self._imagined_steps = checks.integer(f"{name}.imagined_steps", imagined_steps, minimum=1)
        self.imagination = self._make_imagination()
        self._validation: Imagination | None = None
        if self.stopping == "validation":
            models = self.ensemble.num_models
            self._validation = Imagination(
                self.policy,
                self.family,
                self.ensemble,
                models,
                validation_rollouts,
                horizon,
                clip_observation=clip_observation,
            )
        self.gamma = self.processing.gamma
        self.inner_updates = 0
        self.objective = self.meta_update.make_objective(self.policy, inner_lr=0.0)
        self.parameters = self.initial_parameters()
        self._baseline = PlainUpdate.initial_baseline(self.family.observation_dim)
        self._sampler: Any = None

    @property
    def rollouts_per_task(self) -> int:
        """R of the real rounds."""
        return self.real.rollouts_per_task

    @property
    def horizon(self) -> int:
        """H of the real rounds."""
        return self.real.horizon

    def initial_parameters(self) -> Weights:
        """The policy's weights before training, a function of the seed."""
        return self.policy.initial_weights(self.seed, self.family.observation_dim, self.family.action_dim)

    def _make_imagination(self, first: int = 0, count: int | None = None) -> Imagination:
        return Imagination(
            self.policy,
            self.family,
            self.ensemble,
            1,
            1,
            self._imagined_horizon,
            clip_observation=self._clip_observation,
            member="random",
            requested_steps=self._imagined_steps,
            stop_rule="global" if self._stop_rule == "global" else "per_row",
            first_row=first,
            shard_rows=count,
        )

    @property
    def num_units(self) -> int:
        """Imagined rows; real data are gathered and models are fitted in the learner's process."""
        return self.imagination.rows_per_task

    def make_part(self, first: int, count: int) -> PlainShard:
        """The shard that imagines the rows [first, first + count) of every batch."""
        whole = count == self.num_units
        imagination = self.imagination if whole else self._make_imagination(first, count)
        return PlainShard(imagination, self.objective, self.processing)

    def require_split(self, num_shards: int) -> None:
        """Passes if the imagined rows can be spread over so many shards.

        Raises:
            UserError: there are too few, their rollouts end at different times, or the models couple them.
        """
        super().require_split(num_shards)
        if num_shards > 1 and self.ensemble.couples_rows:
            raise UserError(f"{type(self.ensemble).__name__}'s smooth mask needs all rows at one place: one worker")
        if num_shards > 1 and not self.imagination.splits:
            raise UserError(
                f"imagined rollouts of {self.family.name} end at different times; to spread its rows over workers, "
                "let every row stop by itself: METRPOLearner.stop_rule = 'per_task'"
            )

    def _collect_real(self, tasks: TaskBatch, report: Report) -> Batch:
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
        if self.real.reset_policy_std and self.iteration:
            self.parameters = self.policy.with_std(self.parameters, 1.0)
        key = NoiseKey(self.seed, self.iteration, "real", tasks.indices)
        return self._sampler.collect(tiled(self.parameters, self.num_tasks), tasks.tasks, key)

    def _improve(self, report: Report) -> Metrics:
        """The TRPO steps, each on a fresh imagined batch."""
        effective = self.ensemble.effective(self.models)
        self.pool.call("use", effective=effective, buffer=None)  # rows start where the family resets them
        step = PlainStep(self.pool, self.meta_update, self.processing)
        seconds = dict.fromkeys(("sampling", "update"), 0.0)
        returns: list[float] = []
        infos: list[Mapping[str, float]] = []
        rolling, validated = 0.0, self._model_returns(effective)
        clock = reporting.Stopwatch()
        for number in range(self.update_steps):
            report(f"TRPO step {number + 1}/{self.update_steps}")
            clock.restart()
            returns.append(step.imagine(self.parameters, self.seed, self.iteration, f"update_{number}"))
            seconds["sampling"] += clock.elapsed()
            require_finite(f"the imagined rollouts of TRPO step {number + 1}", {"return": returns[-1]})
            latest = returns[-1] if number == 0 else _OLD * rolling + _NEW * returns[-1]
            if self.stopping == "reward" and number and latest < rolling:
                break
            rolling = latest
            clock.restart()
            self.parameters, self._baseline, info = step.update(self.parameters, self._baseline)
            seconds["update"] += clock.elapsed()
            infos.append(info)
            require_finite(f"the policy after TRPO step {number + 1}", self.parameters)
            if validated is not None and (number + 1) % self.check_every == 0:
                found = self._model_returns(effective)
                if found is not None and np.mean(found > validated) < self.improved_share:
                    break
                validated = found
        metrics: Metrics = {
            f"imagined/update_{step + 1}": returns[step] if step < len(returns) else None
            for step in range(self.update_steps)
        }
        metrics["imagined/updates_made"] = len(infos)
        metrics |= reporting.update_metrics(infos, self.meta_update.info_names)
        return metrics | {f"time/imagined_{name}": value / len(returns) for name, value in seconds.items()}

    def _model_returns(self, effective: Any) -> np.ndarray | None:
        """Mean imagined return in every model by itself, [E]; None without that stopping rule.

        The rollouts start and act with the same random numbers every time, so that only the policy differs.
        """
        if self._validation is None:
            return None
        imagined = self._validation.run(
            tiled(self.parameters, self.ensemble.num_models),
            effective,
            seed=self.seed,
            iteration=self.iteration,
            phase="validation",
            buffer=self.buffer,
        )
        return imagined.mean_return.numpy()

    def _own_state(self) -> dict[str, Any]:
        return {"theta": self.parameters, "baseline": self._baseline}

    def _take_own_state(self, state: Mapping[str, Any]) -> None:
        self.parameters, self._baseline = state["theta"], state["baseline"]

    def summary_line(self, metrics: Metrics) -> str:
        """Real and imagined returns, KL and models."""
        return reporting.summary_line(metrics)

    def final_table(self, report: Report) -> list[dict[str, Any]]:
        """Real returns of random actions, and of the untrained and the trained policy."""
        return evaluation.final_table(self, report)

    def evaluate(self, request: EvaluationRequest, report: Report) -> EvaluationResult:
        """Real rollouts; see `mbmpo.evaluation`."""
        return evaluation.evaluate(self, request, report)

    def sample_rounds(self, request: EvaluationRequest, report: Report) -> SampledTask:
        """Real rounds of one task; see `mbmpo.rendering`."""
        return rendering.sample_rounds(self, request, report)
