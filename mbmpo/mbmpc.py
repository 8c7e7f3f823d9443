"""MB-MPC: plan through the learned models at every real step, learn no policy (MB-MPO specification, section 6.2).

Shapes: `M` copies of the real system, `H` horizon, `O` observation, `A` action.
"""

from collections.abc import Mapping
from typing import Any

import gin
import numpy as np

from mbmpo import evaluation, rendering
from mbmpo.dynamics import DynamicsEnsemble
from mbmpo.model_based import ModelBasedLearner
from mbmpo.planning import ModelPredictiveController, Planner
from mbmpo.real_data import draw_tasks, tiled_nothing
from mbmpo.settings import ModelFit, RealData, require_unset
from metarl.experiment import checks
from metarl.experiment.errors import UserError
from metarl.experiment.learner import EvaluationRequest, EvaluationResult, Metrics, Report
from metarl.policies.host import HostPolicy
from metarl.rendering.rounds import SampledTask
from metarl.sampling.noise import NoiseKey
from metarl.sampling.sampler import Sampler
from metarl.sampling.steps import Batch
from metarl.scaling.shard import TaskBatch
from metarl.simulation.imaginable import ImaginableFamily


@gin.configurable(module="mbmpo")
class MBMPCLearner(ModelBasedLearner):
    """Learns models, and acts by planning in them.

    Args:
        family: the system: `@HalfCheetah()`, ...
        ensemble: the models: `@DynamicsEnsemble()`.
        planner: `@RandomShooting()`, as the original, or `@CrossEntropyMethod()`.
        copies: M; a round takes M * H steps, all copies side by side.
        seed: of everything.
        real: real data, with one rollout per copy; default `RealData()`.
        fit: of the models; default `ModelFit()`.
    """

    def __init__(
        self,
        *,
        family: ImaginableFamily = gin.REQUIRED,
        ensemble: DynamicsEnsemble = gin.REQUIRED,
        planner: Planner = gin.REQUIRED,
        copies: int = 20,
        seed: int = 1,
        real: RealData | None = None,
        fit: ModelFit | None = None,
    ):
        name = "MBMPCLearner"
        copies = checks.integer(f"{name}.copies", copies, minimum=1)
        self.planner = checks.instance(f"{name}.planner", planner, Planner, "such as @RandomShooting()")
        super().__init__(family=family, ensemble=ensemble, real=real, fit=fit, seed=seed, num_tasks=copies)
        if self.real.rollouts_per_task != 1:
            raise UserError(
                f"RealData.rollouts_per_task must be 1 with MBMPCLearner, got {self.real.rollouts_per_task}"
            )
        require_unset(name, self.real, {"collect_with": "stale", "reset_policy_std": False})
        if self.real.num_threads != 1:
            require_unset(name, self.real, {"num_threads": None})
        self.gamma = self.planner.discount
        self._controllers: dict[int, ModelPredictiveController] = {}

    def planned_rollouts(self, tasks: TaskBatch, seed: int, phase: str, report: Report) -> Batch:
        """Real rollouts, one per task, that plan every step with the present models."""
        num_tasks, horizon = len(tasks.tasks), self.real.horizon
        if num_tasks not in self._controllers:
            self._controllers[num_tasks] = ModelPredictiveController(
                self.planner, self.family, self.ensemble, num_tasks
            )
        controller = self._controllers[num_tasks]
        effective = self.ensemble.effective(self.models)
        action_dim = self.family.action_dim

        def policy(arguments: Any) -> HostPolicy:
            del arguments
            ticks = iter(range(2 * horizon))

            def act(observation: np.ndarray, standard_normal: np.ndarray) -> np.ndarray:
                tick = next(ticks)
                if tick % 10 == 0:
                    report(f"planned real sampling, step {tick + 1}/{horizon}")
                plan = controller.plan(
                    effective,
                    observation[:, 0],
                    seed=seed,
                    iteration=self.iteration,
                    phase=phase,
                    step=tick,
                    state_indices=tasks.indices.tolist(),
                )
                nothing = np.zeros((num_tasks, 1, 2 * action_dim), np.float32)
                return np.concatenate([nothing, plan.action[:, np.newaxis]], axis=-1)

            return act

        # One thread, hence one lane: the controller sees all states at once.
        sampler = Sampler(
            self.family,
            _unused,
            num_tasks,
            1,
            horizon,
            1,
            host_act=policy,
            stop_rule=self.real.stop_rule,
            record_final=self.real.store_last_transition,
        )
        key = NoiseKey(seed, self.iteration, phase, tasks.indices)
        batch = sampler.collect(tiled_nothing(num_tasks), tasks.tasks, key)
        self._watch(sampler.seconds)
        return batch

    def _collect_real(self, tasks: TaskBatch, report: Report) -> Batch:
        return self.planned_rollouts(tasks, self.seed, "real", report)

    def _improve(self, report: Report) -> Metrics:
        """There is no policy to improve."""
        return {}

    def _own_state(self) -> dict[str, Any]:
        return {}

    def _take_own_state(self, state: Mapping[str, Any]) -> None:
        pass

    def final_table(self, report: Report) -> list[dict[str, Any]]:
        """Real returns of random actions and of planning."""
        tasks = draw_tasks(self.family, self.num_tasks, self.seed, self.iteration, "final/tasks")
        batch = self.planned_rollouts(tasks, self.seed, "final", report)
        return [evaluation.random_row(self, self.num_tasks), evaluation.row("planned", None, batch, self.num_tasks)]

    def evaluate(self, request: EvaluationRequest, report: Report) -> EvaluationResult:
        """Planned rollouts with the present models; a task is a repetition."""
        return evaluation.evaluate_planning(self, request, report)

    def sample_rounds(self, request: EvaluationRequest, report: Report) -> SampledTask:
        """One planned rollout; see `mbmpo.rendering`."""
        return rendering.sample_planned_round(self, request, report)


def _unused(arguments: Any, observation: Any, standard_normal: Any) -> Any:
    raise AssertionError("planning acts on the host")
