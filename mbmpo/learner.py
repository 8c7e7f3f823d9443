"""MB-MPO: meta-policy optimisation in which every learned model is a task (MB-MPO specification, sections 1 and 4).

One iteration, of which `mbmpo.model_based` does the first half:

    real data with the adapted policies -> buffer -> (real evaluation) -> fit the models
    `meta_steps` times:
        imagine with theta; K times { adapt every task to its own imagined data; imagine with the adapted weights }
        one meta-update of theta on the last phase, through the inner updates

Tasks are not models: M may be a multiple of E, and tasks 4k .. 4k + 3 then all use model k. The policies that gather
the next real data are those of the last inner update of all, hence one meta-update old (O-2).

Shapes: `M` tasks, `K` inner updates, `E` models.
"""

from collections.abc import Mapping
from typing import Any

import gin
import numpy as np
from matplotlib.figure import Figure

from mbmpo import adaptation_effect, reporting, training_plots
from mbmpo.dynamics import DynamicsEnsemble
from mbmpo.finite import require_finite
from mbmpo.imagination import Imagination
from mbmpo.imagined_shard import ImaginedShard
from mbmpo.imagining import ImaginingLearner, RollingReturn
from mbmpo.meta_objective import RandomKey
from mbmpo.meta_step import (
    MetaStep,
    adapted_weights,
    make_objective,
    pooled_statistics,
    require_finite_steps,
    sampling_seconds,
    slowest,
)
from mbmpo.meta_updates import MetaUpdate
from mbmpo.plasticity import MapMaker, PointPlasticity, map_metrics
from mbmpo.policies import GaussianMLPPolicy, Weights
from mbmpo.processing import Processing
from mbmpo.real_data import RealCollector, tiled
from mbmpo.settings import ImaginedData, InnerAdaptation, ModelFit, RealData, part
from mbmpo.shard import Adaptation, MetaShard
from mbmpo.transitions import Transitions
from metarl.experiment import checks
from metarl.experiment.learner import Metrics, Report
from metarl.scaling.pool import LocalPool
from metarl.scaling.shard import TaskBatch
from metarl.simulation.imaginable import ImaginableFamily

# Of each task. With all of its steps it would cost as much as imagining a phase with every model.
_DISAGREEMENT_ROWS = 100


@gin.configurable(module="mbmpo")
class MBMPOLearner(ImaginingLearner):
    """Meta-trains a policy inside an ensemble of learned models.

    Args:
        policy: `@GaussianMLPPolicy()`.
        family: the tasks: `@HalfCheetah()`, ...
        ensemble: the models: `@DynamicsEnsemble()`.
        meta_update: `@MetaTRPO()`, `@MetaPPO()` or `@MetaVPG()`.
        meta_batch_size: M, a multiple of the number of models; None for that number.
        meta_steps: meta-updates per iteration.
        seed: of everything.
        adaptation: the inner updates; default `InnerAdaptation()`.
        real: real data; default `RealData()`.
        fit: of the models; default `ModelFit()`.
        imagined: imagined data; default `ImaginedData()`.
        processing: baseline and advantages; default `Processing()`.
        log_real_performance: evaluate the policy on the real system in every iteration, before and after adaptation to
            real data; neither stored nor counted (O-5, O-31).
        stop_when_reward_decreases: leave an iteration's meta-steps when the rolling mean of the imagined return falls.
        plasticity: `@PointPlasticity()` maps, in every iteration, how far adaptation to real data moves the policy and
            where the models disagree (section 9.2); None does not.
        effect_in_every_meta_step: log what adaptation to imagined data changes, and the models' disagreement there, for
            every meta-step (section 9.2); False: for the last one, and the disagreement of some of its steps.
    """

    changeable = ImaginingLearner.changeable | {"MBMPOLearner.log_real_performance"}
    unit = "task"
    stop_rule_setting = "ImaginedData.stop_rule"

    def __init__(
        self,
        *,
        policy: GaussianMLPPolicy = gin.REQUIRED,
        family: ImaginableFamily = gin.REQUIRED,
        ensemble: DynamicsEnsemble = gin.REQUIRED,
        meta_update: MetaUpdate = gin.REQUIRED,
        meta_batch_size: int | None = None,
        meta_steps: int = 10,
        seed: int = 1,
        adaptation: InnerAdaptation | None = None,
        real: RealData | None = None,
        fit: ModelFit | None = None,
        imagined: ImaginedData | None = None,
        processing: Processing | None = None,
        log_real_performance: bool = True,
        stop_when_reward_decreases: bool = False,
        plasticity: PointPlasticity | None = None,
        effect_in_every_meta_step: bool = False,
    ):
        name = "MBMPOLearner"
        checks.instance(f"{name}.ensemble", ensemble, DynamicsEnsemble, "@DynamicsEnsemble()")
        if meta_batch_size is None:
            meta_batch_size = ensemble.num_models
        checks.integer(f"{name}.meta_batch_size", meta_batch_size, minimum=1)
        super().__init__(
            policy=policy,
            family=family,
            ensemble=ensemble,
            real=real,
            fit=fit,
            processing=processing,
            seed=seed,
            num_tasks=meta_batch_size,
        )
        self.meta_update = checks.instance(f"{name}.meta_update", meta_update, MetaUpdate, "such as @MetaTRPO()")
        self.meta_steps = checks.integer(f"{name}.meta_steps", meta_steps, minimum=1)
        self.adaptation = part(f"{name}.adaptation", adaptation, InnerAdaptation)
        self.imagined = part(f"{name}.imagined", imagined, ImaginedData)
        self.inner_updates = self.adaptation.inner_updates
        self.log_real_performance = checks.flag(f"{name}.log_real_performance", log_real_performance)
        self.stop_when_reward_decreases = checks.flag(f"{name}.stop_when_reward_decreases", stop_when_reward_decreases)
        self.effect_in_every_meta_step = checks.flag(f"{name}.effect_in_every_meta_step", effect_in_every_meta_step)
        self._maps: MapMaker | None = None
        if plasticity is not None:
            asked = f"{name}.plasticity"
            checks.instance(asked, plasticity, PointPlasticity, "@PointPlasticity()")
            self._maps = MapMaker(plasticity, self.policy, self.ensemble, self.family, asked)
            self.plasticity_maps = self._maps.empty()
        self.objective = make_objective(self.policy, self.meta_update, self.adaptation)
        self.imagination = self._make_imagination()
        self.meta_update.require_rows(self.imagination.capacity)
        self.parameters = self.initial_parameters()
        self._meta_state = self.meta_update.initial_state(
            self.parameters, self.num_tasks, self.adaptation.inner_updates
        )
        self._adapted = tiled(self.objective.policy_weights(self.parameters), self.num_tasks)
        self._imagined_step: MetaStep | None = None
        self._real_step: MetaStep | None = None

    def _make_imagination(self, first: int = 0, count: int | None = None) -> Imagination:
        settings = self.imagined
        horizon = settings.horizon or self.real.horizon
        return Imagination(
            self.policy,
            self.family,
            self.ensemble,
            self.num_tasks,
            settings.rollouts_per_task,
            horizon,
            self.real.horizon if settings.rows_from == "real_horizon" else horizon,
            clip_observation=settings.clip_observation,
            reset=settings.reset,
            inherit_time=settings.inherit_time,
            resets_per_row=settings.resets_per_row,
            stop_rule=settings.stop_rule,
            first_task=first,
            shard_size=count,
        )

    def _acting_weights(self, tasks: TaskBatch, report: Report) -> Weights:
        if self.real.collect_with == "pre":
            return super()._acting_weights(tasks, report)
        if self.real.collect_with == "stale":
            return self._adapted
        report("adaptation for real sampling")
        self._give_models(self._starts)
        return adapted_weights(
            self._imagined().adapt(self.parameters, tasks, self.seed, self.iteration, "readapt", keep=False)
        )

    @property
    def _starts(self) -> Transitions | None:
        """Where imagined rollouts start, if not at resets of the family."""
        return self.buffer if self.imagined.reset == "buffer" else None

    def _evaluate_real(self, tasks: TaskBatch, report: Report) -> Metrics:
        """Returns of theta and of theta after adaptation to real data (section 1.2, step 4)."""
        metrics: Metrics = {}
        adaptations: list[Adaptation] = []
        if self.log_real_performance or self._maps is not None:
            if self._real_step is None:
                shard = MetaShard(
                    self.objective,
                    self.processing,
                    RealCollector(self._real_sampler(), self.steps_per_round),
                    self.num_tasks,
                    self.inner_updates,
                    self.real.horizon,
                )
                self._real_step = MetaStep(LocalPool([shard]), self.meta_update)
            adaptations = self._real_step.adapt(
                self.parameters,
                tasks,
                self.seed,
                self.iteration,
                "evaluation",
                keep=False,
                report=lambda phrase: report(f"real evaluation, {phrase}"),
            )
            require_finite_steps("the real evaluation", adaptations)
            self.count_evaluation(sum(adaptation.account.env_steps for adaptation in adaptations))
            self._adapted_to_real = adapted_weights(adaptations)
        logged = adaptations if self.log_real_performance else []
        for name, phase in (("pre_update", 0), ("post_update", -1)):
            metrics |= reporting.path_metrics(name, pooled_statistics(logged, phase) if logged else None)
            metrics |= reporting.sampler_metrics(name, sampling_seconds(logged, phase))
        return metrics

    @property
    def num_units(self) -> int:
        """M, the imagined tasks."""
        return self.num_tasks

    def make_part(self, first: int, count: int) -> ImaginedShard:
        """The shard that imagines the tasks [first, first + count) of the meta-batch."""
        whole = count == self.num_tasks
        imagination = self.imagination if whole else self._make_imagination(first, count)
        rows = None if self.effect_in_every_meta_step else _DISAGREEMENT_ROWS
        return ImaginedShard(self.objective, self.processing, imagination, self.ensemble, self.inner_updates, rows)

    def _imagined(self) -> MetaStep:
        if self._imagined_step is None:
            self._imagined_step = MetaStep(self.pool, self.meta_update)
        return self._imagined_step

    def _improve(self, report: Report) -> Metrics:
        """The meta-steps (section 1.2, step 6)."""
        self._give_models(self._starts)
        maps = self._map_plasticity(report)
        step = self._imagined()
        tasks = TaskBatch(np.zeros((self.num_tasks, 0)), np.arange(self.num_tasks))
        returns: list[tuple[float, float]] = []
        infos: list[Mapping[str, float]] = []
        seconds = dict.fromkeys(("sampling", "processing", "inner", "outer"), 0.0)
        effects: list[Metrics] = []
        rolling = RollingReturn()
        # The original's column is of before the meta-steps (section 1.2, step 1).
        step_size = reporting.mean_step_size(self.parameters, self.adaptation.inner_lr)
        clock = reporting.Stopwatch()
        for number in range(self.meta_steps):
            report(f"meta-step {number + 1}/{self.meta_steps}")
            phase = f"meta_step_{number}"
            theta = self.parameters
            adaptations = step.adapt(theta, tasks, self.seed, self.iteration, phase)
            for name, value in slowest(adaptations).items():
                seconds[name] += value
            self._adapted = adapted_weights(adaptations)
            before, after = (pooled_statistics(adaptations, which)["average_return"] for which in (0, -1))
            require_finite(f"the imagined rollouts of meta-step {number + 1}", {"return": (before, after)})
            require_finite(f"the policies adapted in meta-step {number + 1}", self._adapted)
            returns.append((before, after))
            if self.effect_in_every_meta_step:
                effects.append(self._model_metrics(theta, adaptations))
            if rolling.falls(after) and self.stop_when_reward_decreases:
                break
            clock.restart()
            self.parameters, self._meta_state, info = step.update(
                theta,
                self._meta_state,
                adaptations,
                lambda _: None,
                RandomKey(self.seed, self.iteration, f"{phase}/update"),
            )
            require_finite(f"the policy after meta-step {number + 1}", self.parameters)
            infos.append(info)
            seconds["outer"] += clock.elapsed()
        metrics = reporting.imagined_metrics(returns, self.meta_steps)
        metrics |= reporting.update_metrics(infos, self.meta_update.info_names)
        metrics |= maps
        metrics |= effects[-1] if effects else self._model_metrics(theta, adaptations)
        metrics |= reporting.numbered_metrics(effects, self.meta_steps)
        metrics["inner/mean_step_size"] = step_size
        # As in the original: means over the meta-steps.
        return metrics | {f"time/imagined_{name}": value / len(returns) for name, value in seconds.items()}

    def _model_metrics(self, theta: Weights, adaptations: list[Adaptation]) -> Metrics:
        """What adaptation from theta changes and where the models disagree, on the latest imagined steps (9.2)."""
        return adaptation_effect.means(self.pool.call("adaptation_effect", key=adaptations[0].key, parameters=theta))

    def _map_plasticity(self, report: Report) -> Metrics:
        """Maps of the present policy, of what it adapted to real data to before the fit, and of the fitted models."""
        if self._maps is None:
            return {}
        report("plasticity")
        weights = self.objective.policy_weights(self.parameters)
        effective = self.ensemble.effective(self.models)
        self.plasticity_maps = self._maps.extended(self.plasticity_maps, weights, self._adapted_to_real, effective)
        return map_metrics(self.plasticity_maps)

    def figures(self) -> dict[str, Figure]:
        """Those of all model-based methods, and the latest maps of the plasticity study."""
        figures = super().figures()
        if self._maps is not None:
            figures["figures/plasticity"] = training_plots.plasticity_figure(self.plasticity_maps)
        return figures

    def _own_state(self) -> dict[str, Any]:
        state = {"theta": self.parameters, "adapted": self._adapted, "meta_update": self._meta_state}
        return state if self._maps is None else {**state, "plasticity": self.plasticity_maps}

    def _take_own_state(self, state: Mapping[str, Any]) -> None:
        if self._maps is not None:
            self.plasticity_maps = state["plasticity"]
        self.parameters, self._adapted = state["theta"], state["adapted"]
        self._meta_state = state["meta_update"]

    def crash_evidence(self) -> dict[str, np.ndarray]:
        """The latest real steps, the latest imagined phases, the models and the policy."""
        kept = enumerate(self.pool.call("kept_arrays"))
        imagined = {
            f"imagined/shard_{number}/{name}": array for number, arrays in kept for name, array in arrays.items()
        }
        return super().crash_evidence() | imagined
