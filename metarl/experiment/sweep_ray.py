"""A sweep's processes on a Ray cluster. Ray carries commands and exit codes; results go to the shared folder."""

import contextlib
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from metarl.experiment.errors import UserError
from metarl.experiment.sweep_processes import Process, thread_limits
from metarl.scaling import ray_cluster

_LOST = 255  # the exit code of a run whose machine is gone


class RayLauncher:
    """Starts each run's process in an actor; runs that find too few free CPUs wait in Ray's queue.

    The sweep's folder and the project must lie at the same path on every machine.

    Args:
        address: "auto" for the cluster at hand, "local" for one on this machine, or host:port.
        cpus: of the cluster that each run takes, and its threads.

    Raises:
        UserError: Ray is not installed, there is no such cluster, or none of its machines has so many CPUs.
    """

    def __init__(self, address: str, cpus: int = 1):
        self._joined = contextlib.ExitStack()
        try:
            ray = self._joined.enter_context(ray_cluster.joined(address))
        except UserError as error:
            raise UserError(str(error).replace("--address", "--ray_address")) from error
        most = int(max((node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]), default=0))
        if cpus > max(1, most):  # a cluster that has no machine yet may get some
            self._joined.close()
            raise UserError(f"--cpus_per_run={cpus}: no machine of the Ray cluster has more than {most} CPUs")
        self._ray: Any = ray
        self._actor: Any = ray.remote(num_cpus=cpus, max_restarts=0)(_holder_class())
        self._limits = dict(thread_limits(cpus))

    def start(self, command: Sequence[str], log: Path) -> Process:
        """Starts a command on the cluster."""
        environment = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ} | self._limits
        return _RayProcess(
            self._ray, self._actor.remote(), (list(command), str(Path.cwd()), environment, str(log.absolute()))
        )

    def close(self) -> None:
        """Leaves the cluster; one that this process made ends with it."""
        self._joined.close()


class _RayProcess:
    """A process held by an actor; `poll` never waits for the cluster.

    The command starts only once the actor has its CPUs and has answered: an actor that is killed before leaves nothing
    at work.
    """

    def __init__(self, ray: Any, actor: Any, start: tuple[Any, ...]):
        self._ray, self._handle, self._start = ray, actor, start
        self._asked: Any = actor.poll.remote()
        self._begun = False
        self._code: int | None = None

    def begun(self) -> bool:
        return self._begun

    def poll(self) -> int | None:
        if self._code is None and self._ray.wait([self._asked], timeout=0)[0]:
            try:
                self._code = self._ray.get(self._asked)
            except self._ray.exceptions.RayError:
                self._code = _LOST
            if self._code is not None:
                self._handle = None  # the actor ends, and its CPUs are free
            elif self._begun:
                self._asked = self._handle.poll.remote()
            else:
                self._begun = True
                self._asked = self._handle.start.remote(*self._start)
        return self._code

    def signal(self, number: int) -> None:
        if self._handle is None:
            return
        if self._begun:
            self._handle.signal.remote(number)
        else:
            self._ray.kill(self._handle)
            self._handle, self._code = None, -number


def _holder_class() -> Any:
    """Made here, so that it travels by value and a worker needs nothing of this project to hold it."""

    class Holder:
        def __init__(self) -> None:
            self._process: Any = None

        def start(self, command: list[str], folder: str, environment: dict[str, str], log: str) -> None:
            with open(log, "ab", buffering=0) as file:
                try:
                    self._process = subprocess.Popen(
                        command,
                        stdin=subprocess.DEVNULL,
                        stdout=file,
                        stderr=file,
                        cwd=folder,
                        env=os.environ | environment,
                        start_new_session=True,
                    )
                except OSError as error:
                    file.write(f"cannot start on {os.uname().nodename}: {error}\n".encode())
                    raise

        def poll(self) -> int | None:
            return None if self._process is None else self._process.poll()

        def signal(self, number: int) -> None:
            self._process.send_signal(number)

    return Holder
