"""The progress bar and the log lines above it, and what signals ask for."""

import math
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, TextIO

from absl import logging
from tqdm import tqdm

_COUNT = re.compile(r"(\d+)/(\d+)")
_ONE_REQUEST_SECONDS = 1.0


class _AboveTheBar:
    """A stream that writes to another one without breaking the progress bar there."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> None:
        tqdm.write(text, file=self._stream, end="")

    def flush(self) -> None:
        self._stream.flush()


class PhaseClock:
    """Time left in a phase that counts: "meta-step 12/30", "model fit epoch 40/500, validation loss 0.1".

    Args:
        now: seconds; for tests.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic):
        self._now = now
        self._phase: tuple[str, int] | None = None
        self._first, self._started = 0, 0.0

    def time_left(self, phase: str) -> str:
        """Returns " (m:ss left)", or nothing where that is not known: at a phase's first number, or without numbers."""
        found = _COUNT.search(phase)
        if found is None:
            self._phase = None
            return ""
        number, total = int(found[1]), int(found[2])
        named = phase[: found.start()], total
        if named != self._phase or number <= self._first:
            self._phase, self._first, self._started = named, number, self._now()
            return ""
        left = (self._now() - self._started) / (number - self._first) * max(0, total - number + 1)
        return f" ({int(left) // 60}:{int(left) % 60:02d} left)"


class Progress:
    """A bar with the time left and the phase of the current meta-update; nothing where there is no terminal.

    Args:
        done: completed meta-updates.
        total: meta-updates wanted.
    """

    def __init__(self, done: int, total: int):
        self._clock = PhaseClock()
        self._handler = logging.get_absl_handler().python_handler
        self._stream = self._handler.setStream(_AboveTheBar(sys.stderr))
        self._bar = tqdm(
            total=total, initial=done, unit="update", disable=None, file=sys.stderr, dynamic_ncols=True, smoothing=0.1
        )

    def report(self, phase: str) -> None:
        """Shows what is being done, and how long it will yet take if it says "k/n"."""
        self._bar.set_postfix_str(phase + self._clock.time_left(phase))

    def advance(self) -> None:
        """Counts a completed meta-update."""
        self._bar.update()

    def close(self) -> None:
        """Leaves the bar as it is and gives the log its stream back."""
        self._bar.close()
        if self._stream is not None:
            self._handler.setStream(self._stream)


class StopNow(BaseException):
    """A signal that is not to be waited for. Not an Exception, so that nothing on the way swallows it."""


class StopCounter:
    """Counts how often a user asked to stop. Who signals a process and its group at once asked only once.

    `timeout` does so, and so do schedulers that end every process of a job.

    Attributes:
        count: requests so far.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self.count = 0
        self._clock = clock
        self._latest = -math.inf

    def receive(self) -> bool:
        """Takes one signal; returns whether it was a request of its own."""
        now = self._clock()
        if now - self._latest < _ONE_REQUEST_SECONDS:
            return False
        self._latest = now
        self.count += 1
        return True


class Signals:
    """While entered, the first SIGTERM or Ctrl-C is remembered and the second raises `StopNow`; see `StopCounter`.

    Attributes:
        received: the number of the first signal, or None.
        at_once: whether already the first one raises `StopNow`.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.at_once = False
        self._requests = StopCounter()
        self._before: dict[int, Any] = {}

    @property
    def exit_code(self) -> int:
        """128 plus the signal's number, as shells report it, or 0 without a signal."""
        return 0 if self.received is None else 128 + self.received

    def __enter__(self) -> "Signals":
        catchable = threading.current_thread() is threading.main_thread()  # elsewhere Python allows no handlers
        for number in (signal.SIGTERM, signal.SIGINT) if catchable else ():
            self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, _: FrameType | None) -> None:
        if not self._requests.receive():
            return
        self.received = number if self.received is None else self.received
        if self._requests.count > 1 or self.at_once:
            raise StopNow
        # The handler may have interrupted a write to the buffered stderr, so it writes past the buffer.
        os.write(2, b"\nstopping after this meta-update (once more: at once, back to the last checkpoint)\n")
