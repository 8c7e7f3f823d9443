"""The processes of a sweep's runs on this machine, and what a process is wherever it runs."""

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol


class Process(Protocol):
    """A run's process, wherever it is."""

    def poll(self) -> int | None:
        """Returns the exit code, negative for a signal that ended it; None while it runs."""

    def signal(self, number: int) -> None:
        """Sends a signal."""


class Launcher(Protocol):
    """Starts processes; `LocalLauncher` here, or a Ray cluster."""

    def start(self, command: Sequence[str], log: Path) -> Process:
        """Starts a command whose words go to the end of `log`; raises OSError if it cannot."""

    def close(self) -> None:
        """Gives back what was held."""


class LocalLauncher:
    """Starts processes on this machine.

    Each is a session of its own, so that a Ctrl-C on the terminal reaches only the sweep, which passes it on once.
    """

    def start(self, command: Sequence[str], log: Path) -> Process:
        """Starts a command; raises OSError if it cannot."""
        with log.open("ab") as file:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
            )
        return _LocalProcess(process)

    def close(self) -> None:
        """Holds nothing."""


class _LocalProcess:
    def __init__(self, process: subprocess.Popen):
        self._process = process

    def poll(self) -> int | None:
        return self._process.poll()

    def signal(self, number: int) -> None:
        self._process.send_signal(number)
