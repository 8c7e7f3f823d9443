"""The processes of a sweep's runs on this machine, and what a process is wherever it runs."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from metarl.scaling import cores

# TensorFlow's, and those of the libraries that NumPy may use; `cores` is this project's own.
_THREADS = (
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    cores.SHARE,
)


class Process(Protocol):
    """A run's process, wherever it is."""

    def begun(self) -> bool:
        """Tells, after a `poll`, whether it runs or has run; a process that waits for a place has not begun."""

    def poll(self) -> int | None:
        """Returns the exit code, negative for a signal that ended it; None while it runs or waits for a place."""

    def signal(self, number: int) -> None:
        """Sends a signal; ends the process at once if it has not begun."""


class Launcher(Protocol):
    """Starts processes; `LocalLauncher` here, or a Ray cluster."""

    def start(self, command: Sequence[str], log: Path) -> Process:
        """Starts a command whose words go to the end of `log`; raises OSError if it cannot."""

    def close(self) -> None:
        """Gives back what was held."""


def thread_limits(cpus: int) -> Mapping[str, str]:
    """Returns the environment variables by which a run uses so many threads; no configuration tells of it."""
    return dict.fromkeys(_THREADS, str(cpus))


class LocalLauncher:
    """Starts processes on this machine.

    Each is a session of its own, so that a Ctrl-C on the terminal reaches only the sweep, which passes it on once.

    Args:
        cpus: threads of each process; None: as many as it likes, which is all cores.
    """

    def __init__(self, cpus: int | None = None):
        self._environment = os.environ | (thread_limits(cpus) if cpus else {})

    def start(self, command: Sequence[str], log: Path) -> Process:
        """Starts a command; raises OSError if it cannot."""
        with log.open("ab") as file:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=self._environment,
                start_new_session=True,
            )
        return _LocalProcess(process)

    def close(self) -> None:
        """Holds nothing."""


class _LocalProcess:
    def __init__(self, process: subprocess.Popen):
        self._process = process

    def begun(self) -> bool:
        return True

    def poll(self) -> int | None:
        return self._process.poll()

    def signal(self, number: int) -> None:
        self._process.send_signal(number)
