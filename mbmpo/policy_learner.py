"""What all methods with a Gaussian policy share: theta, and what can be done with it on real tasks.

Shapes: `M` tasks, `R` copies per task, `H` horizon, `K` inner updates.
"""

import abc
from collections.abc import Mapping
from typing import Any

import numpy as np

from mbmpo import evaluation, rendering
from mbmpo.meta_objective import MetaObjective
from mbmpo.meta_updates import MetaUpdate
from mbmpo.policies import GaussianMLPPolicy, Weights
from mbmpo.processing import Processing
from mbmpo.settings import part
from mbmpo.stateful import StatefulLearner
from metarl.experiment import checks
from metarl.experiment.learner import EvaluationRequest, EvaluationResult, Metrics, Report
from metarl.rendering.rounds import SampledTask
from metarl.sampling.quota import STOP_RULES
from metarl.simulation.task_family import TaskFamily


class PolicyLearner(StatefulLearner):
    """A learner whose policy acts on real tasks, and adapts to them if the method adapts.

    Attributes:
        policy, objective, meta_update, processing: as configured.
        family: the tasks.
        parameters: theta.
        inner_updates: K of training; 0 for methods that do not adapt.
        num_tasks: M of the real rounds.
        seed: of the run.
    """

    policy: GaussianMLPPolicy
    objective: MetaObjective
    meta_update: MetaUpdate
    processing: Processing
    family: TaskFamily
    parameters: Weights
    inner_updates: int = 0
    num_tasks: int
    seed: int

    @property
    @abc.abstractmethod
    def rollouts_per_task(self) -> int:
        """R of the real rounds."""

    @property
    @abc.abstractmethod
    def horizon(self) -> int:
        """H of the real rounds."""

    @property
    @abc.abstractmethod
    def stop_rule(self) -> str:
        """When the real rounds end; see `metarl.sampling.quota`."""

    @property
    @abc.abstractmethod
    def num_threads(self) -> int | None:
        """Simulation threads of the real rounds; None: the cores this process may use."""

    @property
    def copies_per_task(self) -> int | None:
        """Copies that make the rollouts of a task; None: R."""
        return None

    def initial_parameters(self) -> Weights:
        """Theta before training, a function of the seed."""
        weights = self.policy.initial_weights(self.seed, self.family.observation_dim, self.family.action_dim)
        return self.objective.initial_parameters(weights)

    def final_table(self, report: Report) -> list[dict[str, Any]]:
        """Real returns of random actions, and of the untrained and the trained policy after 0 .. K inner updates."""
        return evaluation.final_table(self, report)

    def evaluate(self, request: EvaluationRequest, report: Report) -> EvaluationResult:
        """Adaptation to real tasks, or mere rollouts; see `mbmpo.evaluation`."""
        return evaluation.evaluate(self, request, report)

    def sample_rounds(self, request: EvaluationRequest, report: Report) -> SampledTask:
        """Real rounds of one task; see `mbmpo.rendering`."""
        return rendering.sample_rounds(self, request, report)


class RealTaskLearner(PolicyLearner):
    """A method that knows nothing but real steps.

    Args:
        policy: acts.
        family: the tasks.
        num_tasks: M, checked.
        rollouts_per_task: R, checked.
        horizon: H.
        seed: of everything.
        processing: baseline and advantages; None for the default.
        num_threads: simulation threads; None for the cores this process may use.
        stop_rule: when a real round ends.
    """

    def __init__(
        self,
        *,
        policy: GaussianMLPPolicy,
        family: TaskFamily,
        num_tasks: int,
        rollouts_per_task: int,
        horizon: int,
        seed: int,
        processing: Processing | None,
        num_threads: int | None,
        stop_rule: str,
    ):
        name = type(self).__name__
        self.policy = checks.instance(f"{name}.policy", policy, GaussianMLPPolicy, "@GaussianMLPPolicy()")
        self.family = checks.instance(f"{name}.family", family, TaskFamily, "a task family such as @HalfCheetah()")
        self.num_tasks, self._rollouts_per_task = num_tasks, rollouts_per_task
        self._horizon = checks.integer(f"{name}.horizon", horizon, minimum=2)
        self.seed = checks.integer(f"{name}.seed", seed, minimum=0, maximum=2**32 - 1)
        self.processing = part(f"{name}.processing", processing, Processing)
        self._num_threads = None if num_threads is None else checks.integer(f"{name}.num_threads", num_threads, 1)
        self._stop_rule = checks.choice(f"{name}.stop_rule", stop_rule, STOP_RULES)
        self._env_steps = 0

    @property
    def rollouts_per_task(self) -> int:
        """R."""
        return self._rollouts_per_task

    @property
    def horizon(self) -> int:
        """H."""
        return self._horizon

    @property
    def stop_rule(self) -> str:
        """When a real round ends."""
        return self._stop_rule

    @property
    def num_threads(self) -> int | None:
        """Simulation threads; None: the cores this process may use."""
        return self._num_threads

    def _counted(self, steps: int) -> Metrics:
        """Books an iteration's real steps; returns the columns of it."""
        self._env_steps += steps
        return {"env_steps/this_iteration": steps, "env_steps/total": self._env_steps}

    @abc.abstractmethod
    def _own_state(self) -> dict[str, Any]:
        """The method's part of the state beside theta: nests by name."""

    @abc.abstractmethod
    def _take_own_state(self, state: Mapping[str, Any]) -> None:
        """Takes over what `_own_state` returned; names of other parts may be among it."""

    def _whole_state(self) -> dict[str, Any]:
        counters = {"iteration": self.iteration, "env_steps": self._env_steps}
        return {"theta": self.parameters, **self._own_state(), "counters": counters}

    def _take_whole_state(self, state: Mapping[str, Any]) -> None:
        self.parameters = state["theta"]
        self._take_own_state(state)
        self.iteration, self._env_steps = state["counters"]["iteration"], state["counters"]["env_steps"]

    def crash_evidence(self) -> dict[str, np.ndarray]:
        """The latest steps and the state."""
        return self._latest_steps() | self.state()

    @abc.abstractmethod
    def _latest_steps(self) -> dict[str, np.ndarray]:
        """The latest steps as named arrays."""
