"""TRPO on the real system, the model-free reference (MB-MPO specification, section 6.3).

Shapes: `M` tasks, here copies of the system, each with its own draw of the family's task; `H` horizon, `S` steps.
"""

from collections.abc import Mapping
from typing import Any

import gin
import numpy as np

from mbmpo import reporting
from mbmpo.finite import require_finite, require_finite_batch
from mbmpo.meta_updates import TRPO
from mbmpo.plain import PlainUpdate
from mbmpo.policies import GaussianMLPPolicy
from mbmpo.policy_learner import RealTaskLearner
from mbmpo.processing import Processing, pooled
from mbmpo.real_data import draw_tasks, policy_sampler, tiled
from metarl.experiment import checks
from metarl.experiment.learner import Metrics, Report
from metarl.sampling.noise import NoiseKey
from metarl.simulation.task_family import TaskFamily


@gin.configurable(module="mbmpo")
class TRPOLearner(RealTaskLearner):
    """Trains one policy on real steps.

    Args:
        policy: `@GaussianMLPPolicy()`.
        family: the system, or a family of them: every copy works on its own draw, anew in every iteration.
        update: `@TRPO()`.
        copies: M; an iteration takes M * R * H steps.
        rollouts_per_copy: R.
        horizon: H.
        seed: of everything.
        processing: baseline and advantages; default `Processing()`.
        num_threads: simulation threads; default: the cores this process may use.
        stop_rule: "global": an iteration's real steps end when the finished episodes of all copies hold M * R * H of
            them; "per_task": each copy's task by itself; "truncate": after H steps of every copy, running episodes
            being cut and kept (O-23). Without early ends all are the same.
    """

    changeable = frozenset({"TRPOLearner.num_threads"})

    def __init__(
        self,
        *,
        policy: GaussianMLPPolicy = gin.REQUIRED,
        family: TaskFamily = gin.REQUIRED,
        update: TRPO = gin.REQUIRED,
        copies: int = 250,
        rollouts_per_copy: int = 1,
        horizon: int = 200,
        seed: int = 1,
        processing: Processing | None = None,
        num_threads: int | None = None,
        stop_rule: str = "global",
    ):
        name = "TRPOLearner"
        super().__init__(
            policy=policy,
            family=family,
            num_tasks=checks.integer(f"{name}.copies", copies, minimum=1),
            rollouts_per_task=checks.integer(f"{name}.rollouts_per_copy", rollouts_per_copy, minimum=1),
            horizon=horizon,
            seed=seed,
            processing=processing,
            num_threads=num_threads,
            stop_rule=stop_rule,
        )
        self.meta_update = checks.instance(f"{name}.update", update, TRPO, "@TRPO()")
        self.plain = PlainUpdate(self.policy, self.meta_update, self.processing, self.horizon)
        self.objective = self.plain.objective
        self.parameters = self.initial_parameters()
        self._baseline = self.plain.initial_baseline(self.family.observation_dim)
        self._sampler: Any = None
        self._last_steps: Any = None

    def run_iteration(self, report: Report) -> Metrics:
        """Real steps and one TRPO step."""
        clock = self._iteration_clock()
        if self._sampler is None:
            self._sampler = policy_sampler(
                self.policy,
                self.family,
                self.num_tasks,
                self.rollouts_per_task,
                self.horizon,
                num_threads=self.num_threads,
                stop_rule=self.stop_rule,
            )
        tasks = draw_tasks(self.family, self.num_tasks, self.seed, self.iteration)
        key = NoiseKey(self.seed, self.iteration, "real", tasks.indices)
        asked = self.num_tasks * self.rollouts_per_task * self.horizon
        progress = reporting.step_progress(report, "real sampling, step", asked)
        weights = tiled(self.parameters, self.num_tasks)
        batch = self._sampler.collect(weights, tasks.tasks, key, progress=progress)
        self._last_steps = batch.steps
        require_finite_batch("the real steps", batch)
        counted = self._counted(int(batch.episodes.length.sum()))
        sampling = clock.elapsed()
        report("TRPO step")
        self.parameters, self._baseline, info, statistics = self.plain.update(
            self.parameters, self._baseline, pooled(batch.steps)
        )
        update = clock.elapsed() - sampling
        require_finite("the policy after the TRPO step", self.parameters)
        self.iteration += 1
        metrics = reporting.path_metrics("real", statistics)
        metrics |= reporting.sampler_metrics("real", [self._sampler.seconds])
        metrics |= reporting.update_metrics([info], self.meta_update.info_names)
        return metrics | {
            **counted,
            "time/env_sampling": sampling,
            "time/update": update,
            **self._clock_metrics(clock),
        }

    def _own_state(self) -> dict[str, Any]:
        return {"baseline": self._baseline}

    def _take_own_state(self, state: Mapping[str, Any]) -> None:
        self._baseline = state["baseline"]

    def _latest_steps(self) -> dict[str, np.ndarray]:
        steps = {} if self._last_steps is None else self._last_steps._asdict()
        return {f"steps/{name}": np.asarray(value) for name, value in steps.items()}
