"""What the training loop asks of a learner: any method that keeps this protocol can be launched and resumed."""

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from metarl.experiment import checks
from metarl.experiment.errors import UserError

if TYPE_CHECKING:
    from metarl.rendering.rounds import SampledTask

Metrics = dict[str, float | None]
Report = Callable[[str], None]


class NonFiniteError(Exception):
    """A number that must be finite is not. The loop writes `crash/`, and stops without saving this state.

    A learner may raise it out of `run_iteration` as soon as it sees such a number; it need not, because the loop
    looks at every metric and at every array it is about to save.
    """


@dataclasses.dataclass(frozen=True)
class EvaluationRequest:
    """What to evaluate a trained learner on; None leaves a value to the run's own configuration.

    Attributes:
        task_sets: names of the learner's task sets, or "all"; default: all, unless `tasks` are given.
        tasks: explicit tasks, such as goals, in the order of their numbers.
        num_tasks: the first so many tasks of each set; default: all.
        fast_updates: K.
        episodes: R, copies of the environment per task in every sampling round.
        noise_sigma: standard deviation of the transition noise on test tasks.
        noise_kind: what the noise is added to.
        seed: of the random numbers.

    Raises:
        UserError: a value is out of range; names the launcher's flag.
    """

    task_sets: tuple[str, ...] = ()
    tasks: tuple[tuple[float, ...], ...] = ()
    num_tasks: int | None = None
    fast_updates: int | None = None
    episodes: int | None = None
    noise_sigma: float | None = None
    noise_kind: str | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        """Checks the values."""
        for flag, value, minimum, maximum in (
            ("--num_goals", self.num_tasks, 1, None),
            ("--fast_updates", self.fast_updates, 0, None),
            ("--episodes", self.episodes, 1, None),
            ("--seed", self.seed, 0, 2**32 - 1),
        ):
            if value is not None:
                checks.integer(flag, value, minimum, maximum)
        if self.noise_sigma is not None:
            checks.real("--noise_sigma", self.noise_sigma, minimum=0.0)
        elif self.noise_kind is not None:
            raise UserError("--noise_kind says nothing without --noise_sigma")
        if self.num_tasks is not None and self.tasks and not self.task_sets:
            raise UserError("--num_goals counts goals of the goal sets; give a --goal_set too")


@dataclasses.dataclass(frozen=True)
class EvaluationResult:
    """What an evaluation found.

    Attributes:
        per_task: one row per task.
        pooled: one row per task set and number of fast-updates.
        text: the result as the log shows it.
        notes: what a reader of the numbers must know.
        settings: the values that were used, plain enough for JSON.
        env_steps: environment steps made.
    """

    per_task: list[dict[str, Any]]
    pooled: list[dict[str, Any]]
    text: str
    notes: list[str]
    settings: dict[str, Any]
    env_steps: int


class Learner(abc.ABC):
    """One meta-learning method with its task family, ready to run.

    The constructor checks all it is configured with and steps no environment. Two learners built from the same
    configuration, of which one has restored the state of the other, do bit-identical work from there on.

    Attributes:
        changeable: 'Configurable.parameter' of every binding that a run may be resumed with another value of, because
            no result depends on it.
        iteration: completed meta-updates; 0 for a new learner.
    """

    changeable: frozenset[str] = frozenset()
    iteration: int = 0

    @abc.abstractmethod
    def run_iteration(self, report: Report) -> Metrics:
        """Does one meta-update, and the validation that is due after it; raises `iteration` by one.

        Args:
            report: to be called with a short phrase whenever the phase of the work changes, for the progress bar.

        Returns:
            The same keys in the same order at every call. A key is 'group/name'; keys under 'time/' are wall-clock
            seconds, the only values that may differ between a resumed and an undisturbed run. A value is an
            integer, a finite float, or None for what was not measured this time.

        Raises:
            NonFiniteError: a number that must be finite is not.
        """

    @abc.abstractmethod
    def summary_line(self, metrics: Metrics) -> str:
        """Returns the one line that the log shows for a meta-update, without the iteration's number."""

    @abc.abstractmethod
    def state(self) -> dict[str, np.ndarray]:
        """Returns all that a checkpoint must hold, under flat names such as 'inner/mlp0.kernel'; floats are finite."""

    @abc.abstractmethod
    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Takes over what `state` returned, `iteration` included.

        Raises:
            UserError: names the first array that is missing, unexpected or of another shape; nothing was restored.
        """

    def figures(self) -> dict[str, Figure]:
        """Returns figures to show beside the curves, by name; leaves generators and state alone."""
        return {}

    @abc.abstractmethod
    def final_table(self, report: Report) -> list[dict[str, Any]]:
        """Returns the rows of `final.csv`, all with the same keys; leaves generators and state alone."""

    @abc.abstractmethod
    def crash_evidence(self) -> dict[str, np.ndarray]:
        """Returns the latest batch and the parameters, for the `crash/` folder; numbers may be anything."""

    def evaluate(self, request: EvaluationRequest, report: Report) -> EvaluationResult:
        """Adapts to tasks with the present parameters; leaves generators and state alone.

        Args:
            request: which tasks, and how.
            report: as in `run_iteration`.

        Raises:
            UserError: the request does not fit this learner, or it cannot be evaluated by itself; nothing was stepped.
            NonFiniteError: a return is not finite.
        """
        raise UserError(f"{type(self).__name__} cannot be evaluated apart from its training")

    def sample_rounds(self, request: EvaluationRequest, report: Report) -> "SampledTask":
        """Samples one task before and after each fast-update, for a video; leaves generators and state alone.

        Args:
            request: at most one task; `fast_updates` and `seed` as in `evaluate`.
            report: as in `run_iteration`.

        Raises:
            UserError: the request does not fit this learner, or there is nothing to show.
        """
        raise UserError(f"{type(self).__name__} has no rollouts to render")
