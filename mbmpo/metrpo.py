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

from mbmpo import adaptation_effect, reporting
from mbmpo.dynamics import DynamicsEnsemble
from mbmpo.finite import require_finite
from mbmpo.imagination import Imagination
from mbmpo.imagining import ImaginingLearner, RollingReturn
from mbmpo.meta_updates import TRPO
from mbmpo.plain import PlainUpdate
from mbmpo.plain_shard import PlainShard
from mbmpo.plain_step import PlainStep
from mbmpo.policies import GaussianMLPPolicy
from mbmpo.processing import Processing
from mbmpo.real_data import tiled
from mbmpo.settings import ModelFit, RealData, require_unset
from metarl.experiment import checks
from metarl.experiment.learner import Metrics, Report
from metarl.simulation.imaginable import ImaginableFamily

STOPPING = ("none", "reward", "validation")


@gin.configurable(module="mbmpo")
class METRPOLearner(ImaginingLearner):
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
        imagined_rollouts_per_task: asks for M times so many imagined rollouts instead; None: `imagined_steps` holds.
        imagined_horizon: H of imagined rollouts; None: the real one.
        clip_observation: limit of predicted observations' entries; None for none, as the original.
        stopping: when an iteration's TRPO steps end early: "none", as the scripts; "reward": the rolling mean of the
            imagined return falls; "validation": Kurutach et al.'s rule, every `check_every` steps the policy is
            evaluated in every model by itself and goes on only while `improved_share` of the models improve (O-21).
        check_every: TRPO steps between two such evaluations, for "validation" only. Where an iteration has no more
            steps than this, the rule never ends it early.
        improved_share: of the models, for "validation" only.
        validation_rollouts: rollouts per model of such an evaluation, for "validation" only.
        first_data: "random" actions or the "policy" in the first iteration (O-24).
        stop_rule: "global": imagined rows go on until the finished rollouts of all hold the steps asked for;
            "per_task": each row, ME-TRPO's task, by itself, which lets rows that end early be spread over workers.
        seed: of everything.
        real: real data; default `RealData()` without a limit of the buffer, as the original keeps all data.
        fit: of the models; default `ModelFit()`.
        processing: baseline and advantages; default `Processing()`.
    """

    unit = "row"
    stop_rule_setting = "METRPOLearner.stop_rule"

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
        imagined_rollouts_per_task: int | None = None,
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
            policy=policy,
            family=family,
            ensemble=ensemble,
            real=RealData(buffer_capacity=None) if real is None else real,
            fit=fit,
            processing=processing,
            seed=seed,
            num_tasks=copies,
            first_data=checks.choice(f"{name}.first_data", first_data, ("random", "policy")),
        )
        require_unset(name, self.real, {"collect_with": "stale"})
        if first_data == "policy":
            require_unset(f"{name}.first_data 'policy'", self.real, {"initial_random_steps": None})
        self.meta_update = checks.instance(f"{name}.update", update, TRPO, "@TRPO()")
        self.update_steps = checks.integer(f"{name}.update_steps", update_steps, minimum=1)
        self.stopping = checks.choice(f"{name}.stopping", stopping, STOPPING)
        self.check_every = checks.integer(f"{name}.check_every", check_every, minimum=1)
        self.improved_share = checks.real(f"{name}.improved_share", improved_share, 0.0, 1.0)
        validation_rollouts = checks.integer(f"{name}.validation_rollouts", validation_rollouts, minimum=1)
        horizon = self.real.horizon
        if imagined_horizon is not None:
            horizon = checks.integer(f"{name}.imagined_horizon", imagined_horizon, minimum=1)
        if clip_observation is not None:
            clip_observation = checks.real(f"{name}.clip_observation", clip_observation, minimum=0.0)
        self._stop_rule = checks.choice(f"{name}.stop_rule", stop_rule, ("global", "per_task"))
        self._imagined_horizon, self._clip_observation = horizon, clip_observation
        self._imagined_steps = checks.integer(f"{name}.imagined_steps", imagined_steps, minimum=1)
        if imagined_rollouts_per_task is not None:
            rollouts = checks.integer(f"{name}.imagined_rollouts_per_task", imagined_rollouts_per_task, minimum=1)
            self._imagined_steps = copies * rollouts * horizon
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
        self.objective = self.meta_update.make_objective(self.policy, inner_lr=0.0)
        self.parameters = self.initial_parameters()
        self._baseline = PlainUpdate.initial_baseline(self.family.observation_dim)

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
        """Imagined rows."""
        return self.imagination.rows_per_task

    def make_part(self, first: int, count: int) -> PlainShard:
        """The shard that imagines the rows [first, first + count) of every batch."""
        whole = count == self.num_units
        imagination = self.imagination if whole else self._make_imagination(first, count)
        return PlainShard(imagination, self.objective, self.processing, self.ensemble)

    def _improve(self, report: Report) -> Metrics:
        """The TRPO steps, each on a fresh imagined batch."""
        effective = self._give_models(buffer=None)  # rows start where the family resets them
        step = PlainStep(self.pool, self.meta_update, self.processing)
        seconds = dict.fromkeys(("sampling", "update"), 0.0)
        returns: list[float] = []
        infos: list[Mapping[str, float]] = []
        rolling, validated = RollingReturn(), self._model_returns(effective)
        clock = reporting.Stopwatch()
        for number in range(self.update_steps):
            report(f"TRPO step {number + 1}/{self.update_steps}")
            clock.restart()
            returns.append(step.imagine(self.parameters, self.seed, self.iteration, f"update_{number}"))
            seconds["sampling"] += clock.elapsed()
            require_finite(f"the imagined rollouts of TRPO step {number + 1}", {"return": returns[-1]})
            if rolling.falls(returns[-1]) and self.stopping == "reward":
                break
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
        metrics |= adaptation_effect.means(self.pool.call("disagreement"))
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
