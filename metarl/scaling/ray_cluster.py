"""Joining a Ray cluster, or starting one on this machine: quietly, in bounded time, on localhost (extra `[ray]`)."""

import contextlib
import ipaddress
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from absl import logging as absl_logging

from metarl.experiment.errors import UserError, did_you_mean

_PATIENCE = 5.0  # seconds for a connection to a port
_JOIN_LIMIT = 60.0  # seconds for joining a cluster
# Ray names it after the systems that are without by default; without, every server binds to 127.0.0.1.
_CLUSTERS = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
# An unreachable address would otherwise be tried for minutes.
_IMPATIENT = {
    "RAY_NUM_REDIS_GET_RETRIES": "1",
    "RAY_gcs_rpc_server_connect_timeout_s": "2",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "10",
    "RAY_gcs_server_request_timeout_seconds": "10",
}
_PROBE = "import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False, configure_logging=False)"


@contextlib.contextmanager
def joined(address: str, num_cpus: int | None = None) -> Iterator[Any]:
    """Ray, connected to a cluster; leaves it at the end, and ends one that was started here.

    Args:
        address: "auto" for the running cluster that Ray finds, "local" for a new one on this machine, or host:port.
        num_cpus: "local": how many actors of one CPU fit in; None: the machine's cores.

    Raises:
        UserError: Ray is not installed, or the cluster cannot be reached.
    """
    if address not in ("auto", "local") and not _is_host_and_port(address):
        raise UserError(
            f"--address is auto, local or host:port, not {address!r}{did_you_mean(address, ('auto', 'local'))}"
        )
    try:
        import ray
    except ImportError as error:
        raise UserError("Ray is not installed; pip install -c constraints.txt -e '.[ray]'") from error
    with _loopback_only() if address == "local" or _is_loopback(address) else contextlib.nullcontext():
        yield from _joined(ray, address, num_cpus)


@contextlib.contextmanager
def _loopback_only() -> Iterator[None]:
    """Lets all servers of Ray bind to 127.0.0.1: those of this process, and by the environment those it starts."""
    from ray._private import ray_constants

    before = os.environ.get(_CLUSTERS), ray_constants.ENABLE_RAY_CLUSTER
    os.environ[_CLUSTERS], ray_constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before[1]
        os.environ.pop(_CLUSTERS)
        if before[0] is not None:
            os.environ[_CLUSTERS] = before[0]


def _joined(ray: Any, address: str, num_cpus: int | None) -> Iterator[Any]:
    logging.getLogger("ray").setLevel(logging.ERROR)
    _keep_off_the_terminal()
    quiet: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
    try:
        if address == "local":
            # The learner waits for its actors: no reason to let them stand back behind it, as is Ray's default.
            own = {"include_dashboard": False, "_system_config": {"worker_niceness": 0}}
            _start(ray, address="local", num_cpus=num_cpus, **own, **quiet)
        else:
            _require_reachable(address)
            ray.init(address=address, **quiet)
    except Exception as error:  # such as a plain Exception where servers are slow to start
        absl_logging.debug("no Ray cluster", exc_info=True)
        raise UserError(f"--address={address}: no Ray cluster can be joined there: {_one_line(error)}") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _start(ray: Any, **options: Any) -> None:
    """Starts a cluster; once more if it does not come up within Ray's fixed 30 seconds, as on a busy machine."""
    try:
        ray.init(**options)
    except Exception as error:
        absl_logging.debug("Ray does not start (%s); once more", error)
        ray.shutdown()
        ray.init(**options)


def _is_host_and_port(address: str) -> bool:
    host, _, port = address.rpartition(":")
    return bool(host) and port.isdigit() and 0 < int(port) < 2**16


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _require_reachable(address: str) -> None:
    """Passes if a process can join the cluster: where it cannot, Ray may end the one that tries, and writes a lot."""
    if address != "auto":
        host, _, port = address.rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE).close()
    command = [sys.executable, "-c", _PROBE, address]
    try:
        done = subprocess.run(
            command, env=os.environ | _IMPATIENT, capture_output=True, text=True, timeout=_JOIN_LIMIT, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(f"no answer within {_JOIN_LIMIT:g} seconds") from error
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith(("ConnectionError:", "RuntimeError:"))]
        raise ConnectionError(said[-1] if said else "what answers there is not a Ray cluster of this version")


def _keep_off_the_terminal() -> None:
    """Sends the messages of Ray's daemons, such as that a worker died, to the debug log: the pool tells of that."""
    from ray._private import worker

    if hasattr(worker, "print_to_stdstream"):
        worker.print_to_stdstream = lambda data, **_: absl_logging.debug("ray: %s", data.get("lines"))


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
