"""A sweep's processes on a Ray cluster. Ray carries commands and exit codes; results go to the shared folder."""

import contextlib
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from metarl.experiment.errors import UserError
from metarl.experiment.sweep_processes import Process
from metarl.scaling import ray_cluster

_LOST = 255  # the exit code of a run whose machine is gone


class RayLauncher:
    """Starts each run's process in an actor of one CPU; runs that find no free CPU wait in Ray's queue.

    The sweep's folder and the project must lie at the same path on every machine.

    Args:
        address: "auto" for the cluster at hand, "local" for one on this machine, or host:port.

    Raises:
        UserError: Ray is not installed, or there is no such cluster.
    """

    def __init__(self, address: str):
        self._joined = contextlib.ExitStack()
        try:
            ray = self._joined.enter_context(ray_cluster.joined(address))
        except UserError as error:
            raise UserError(str(error).replace("--address", "--ray_address")) from error
        self._ray: Any = ray
        self._actor: Any = _actor_class(ray)

    def start(self, command: Sequence[str], log: Path) -> Process:
        """Starts a command on the cluster."""
        environment = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
        return _RayProcess(
            self._ray, self._actor.remote(list(command), str(Path.cwd()), environment, str(log.absolute()))
        )

    def close(self) -> None:
        """Leaves the cluster; one that this process made ends with it."""
        self._joined.close()


class _RayProcess:
    """A process held by an actor; `poll` never waits for the cluster."""

    def __init__(self, ray: Any, actor: Any):
        self._ray, self._handle = ray, actor
        self._asked: Any = actor.poll.remote()
        self._code: int | None = None

    def poll(self) -> int | None:
        if self._code is None and self._ray.wait([self._asked], timeout=0)[0]:
            try:
                self._code = self._ray.get(self._asked)
            except self._ray.exceptions.RayError:
                self._code = _LOST
            if self._code is None:
                self._asked = self._handle.poll.remote()
            else:
                self._handle = None  # the actor ends, and its CPU is free
        return self._code

    def signal(self, number: int) -> None:
        if self._handle is not None:
            self._handle.signal.remote(number)


def _actor_class(ray: Any) -> Any:
    """Made here, so that it travels by value and a worker needs nothing of this project to hold it."""

    class Holder:
        def __init__(self, command: list[str], folder: str, environment: dict[str, str], log: str):
            # Ray sets this to the actor's CPUs, which would change the numbers of a run
            inherited = {name: text for name, text in os.environ.items() if name != "OMP_NUM_THREADS"}
            with open(log, "ab") as file:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=file,
                    cwd=folder,
                    env=inherited | environment,
                    start_new_session=True,
                )

        def poll(self) -> int | None:
            return self._process.poll()

        def signal(self, number: int) -> None:
            self._process.send_signal(number)

    return ray.remote(num_cpus=1, max_restarts=0)(Holder)
