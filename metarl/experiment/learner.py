"""What the training loop asks of a learner: any method that keeps this protocol can be launched and resumed."""

import abc
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

Metrics = dict[str, float | None]
Report = Callable[[str], None]


class NonFiniteError(Exception):
    """A number that must be finite is not. The loop writes `crash/`, and stops without saving this state.

    A learner may raise it out of `run_iteration` as soon as it sees such a number; it need not, because the loop
    looks at every metric and at every array it is about to save.
    """


class Learner(abc.ABC):
    """One meta-learning method with its task family, ready to run.

    The constructor checks all it is configured with and steps no environment. Two learners built from the same
    configuration, of which one has restored the state of the other, do bit-identical work from there on.

    Attributes:
        iteration: completed meta-updates; 0 for a new learner.
    """

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
