"""TRPO on the real system, the model-free reference (MB-MPO specification, section 6.3).

Shapes: `M` tasks, here copies of the system, each with its own draw of the family's task; `H` horizon, `S` steps.
"""

from collections.abc import Mapping
from typing import Any

import gin
import numpy as np

from mbmpo import evaluation, rendering, reporting
from mbmpo.finite import require_finite, require_finite_batch
from mbmpo.meta_updates import TRPO
from mbmpo.plain import PlainUpdate
from mbmpo.policies import GaussianMLPPolicy, Weights
from mbmpo.processing import Processing, pooled
from mbmpo.real_data import draw_tasks, policy_sampler, tiled
from mbmpo.settings import part
from metarl.experiment import checks, state_arrays
from metarl.experiment.learner import EvaluationRequest, EvaluationResult, Learner, Metrics, Report
from metarl.rendering.rounds import SampledTask
from metarl.sampling.noise import NoiseKey
from metarl.simulation.task_family import TaskFamily


@gin.configurable(module="mbmpo")
class TRPOLearner(Learner):
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
    ):
        name = "TRPOLearner"
        self.policy = checks.instance(f"{name}.policy", policy, GaussianMLPPolicy, "@GaussianMLPPolicy()")
        self.family = checks.instance(f"{name}.family", family, TaskFamily, "a task family such as @HalfCheetah()")
        self.meta_update = checks.instance(f"{name}.update", update, TRPO, "@TRPO()")
        self.num_tasks = checks.integer(f"{name}.copies", copies, minimum=1)
        self.rollouts_per_task = checks.integer(f"{name}.rollouts_per_copy", rollouts_per_copy, minimum=1)
        self.horizon = checks.integer(f"{name}.horizon", horizon, minimum=2)
        self.seed = checks.integer(f"{name}.seed", seed, minimum=0, maximum=2**32 - 1)
        self.processing = part(f"{name}.processing", processing, Processing)
        self._num_threads = None if num_threads is None else checks.integer(f"{name}.num_threads", num_threads, 1)
        self.inner_updates = 0
        self.plain = PlainUpdate(self.policy, self.meta_update, self.processing, self.horizon)
        self.objective = self.plain.objective
        self.parameters = self.initial_parameters()
        self._baseline = self.plain.initial_baseline(self.family.observation_dim)
        self.iteration = 0
        self._env_steps = 0
        self._sampler: Any = None
        self._last_steps: Any = None

    def initial_parameters(self) -> Weights:
        """The policy's weights before training, a function of the seed."""
        return self.policy.initial_weights(self.seed, self.family.observation_dim, self.family.action_dim)

    def run_iteration(self, report: Report) -> Metrics:
        """Real steps and one TRPO step."""
        clock = reporting.Stopwatch()
        if self._sampler is None:
            self._sampler = policy_sampler(
                self.policy,
                self.family,
                self.num_tasks,
                self.rollouts_per_task,
                self.horizon,
                num_threads=self._num_threads,
            )
        tasks = draw_tasks(self.family, self.num_tasks, self.seed, self.iteration)
        report("real sampling")
        key = NoiseKey(self.seed, self.iteration, "real", tasks.indices)
        batch = self._sampler.collect(tiled(self.parameters, self.num_tasks), tasks.tasks, key)
        self._last_steps = batch.steps
        require_finite_batch("the real steps", batch)
        steps = int(batch.episodes.length.sum())
        self._env_steps += steps
        sampling = clock.elapsed()
        report("TRPO step")
        self.parameters, self._baseline, info, statistics = self.plain.update(
            self.parameters, self._baseline, pooled(batch.steps)
        )
        require_finite("the policy after the TRPO step", self.parameters)
        self.iteration += 1
        metrics = reporting.path_metrics("real", statistics)
        metrics |= reporting.update_metrics([info], self.meta_update.info_names)
        return metrics | {
            "env_steps/this_iteration": steps,
            "env_steps/total": self._env_steps,
            "time/env_sampling": sampling,
            "time/update": clock.elapsed() - sampling,
            "time/iteration": clock.elapsed(),
        }

    def summary_line(self, metrics: Metrics) -> str:
        """Return, KL and speed."""
        return reporting.summary_line(metrics)

    def state(self) -> dict[str, np.ndarray]:
        """Weights, baseline and counters."""
        return state_arrays.flatten("", self._whole_state())

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Takes over what `state` returned.

        Raises:
            UserError: an array is missing, unexpected or of another shape; nothing was restored.
        """
        arrays = {name: np.asarray(value) for name, value in arrays.items()}
        mine = self._whole_state()
        state_arrays.require_same_arrays(arrays, state_arrays.flatten("", mine))
        state = state_arrays.unflatten("", arrays, mine)
        self.parameters, self._baseline = state["theta"], state["baseline"]
        self.iteration, self._env_steps = state["counters"]["iteration"], state["counters"]["env_steps"]

    def _whole_state(self) -> dict[str, Any]:
        counters = {"iteration": self.iteration, "env_steps": self._env_steps}
        return {"theta": self.parameters, "baseline": self._baseline, "counters": counters}

    def crash_evidence(self) -> dict[str, np.ndarray]:
        """The latest steps and the weights."""
        steps = {} if self._last_steps is None else self._last_steps._asdict()
        return {f"steps/{name}": np.asarray(value) for name, value in steps.items()} | self.state()

    def final_table(self, report: Report) -> list[dict[str, Any]]:
        """Returns of random actions, and of the untrained and the trained policy."""
        return evaluation.final_table(self, report)

    def evaluate(self, request: EvaluationRequest, report: Report) -> EvaluationResult:
        """Real rollouts; see `mbmpo.evaluation`."""
        return evaluation.evaluate(self, request, report)

    def sample_rounds(self, request: EvaluationRequest, report: Report) -> SampledTask:
        """Real rounds of one task; see `mbmpo.rendering`."""
        return rendering.sample_rounds(self, request, report)
