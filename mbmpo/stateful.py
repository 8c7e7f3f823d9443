"""A run's state as named arrays, and its log line: what all learners of this port share."""

import abc
from collections.abc import Mapping
from typing import Any

import numpy as np

from mbmpo import reporting
from metarl.experiment import state_arrays
from metarl.experiment.learner import Learner, Metrics


class StatefulLearner(Learner):
    """Saves and restores the nest of arrays that a subclass describes.

    Attributes:
        growing: prefixes of arrays whose first axis may have any length, such as a buffer's.
    """

    growing: tuple[str, ...] = ()
    _session: reporting.Stopwatch | None = None

    def _iteration_clock(self) -> reporting.Stopwatch:
        """Starts at the beginning of an iteration; with the first one the session begins."""
        clock = reporting.Stopwatch()
        self._session = self._session or clock
        return clock

    def _clock_metrics(self, clock: reporting.Stopwatch) -> Metrics:
        """Seconds of the iteration and, over the iterations so far, of this process."""
        seconds = clock.elapsed()
        return {"time/iteration": seconds, "time/overall": (self._session or clock).elapsed()}

    @abc.abstractmethod
    def _whole_state(self) -> dict[str, Any]:
        """All that a checkpoint must hold: nests by name."""

    @abc.abstractmethod
    def _take_whole_state(self, state: Mapping[str, Any]) -> None:
        """Takes over what `_whole_state` returned."""

    def state(self) -> dict[str, np.ndarray]:
        """Everything that later iterations depend on, counters included."""
        return state_arrays.flatten("", self._whole_state())

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Takes over what `state` returned.

        Raises:
            UserError: an array is missing, unexpected or of another shape; nothing was restored.
        """
        arrays = {name: np.asarray(value) for name, value in arrays.items()}
        mine = self._whole_state()
        state_arrays.require_same_arrays(arrays, state_arrays.flatten("", mine), self.growing)
        self._take_whole_state(state_arrays.unflatten("", arrays, mine))

    def summary_line(self, metrics: Metrics) -> str:
        """Returns, KL, models and speed, as far as the method has them."""
        return reporting.summary_line(metrics)
