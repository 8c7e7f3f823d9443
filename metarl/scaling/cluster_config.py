"""TF_CONFIG: the processes of a `tf.distribute` run over hosts, checked, and met before TensorFlow waits for them."""

import contextlib
import dataclasses
import json
import socket
import time
from collections.abc import Mapping

from metarl.experiment.errors import UserError, WorkerError

_JOBS = ("chief", "worker")
_PAUSE = 0.1  # seconds between two attempts


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The processes that TF_CONFIG names.

    Attributes:
        port: where this process listens.
        others: name and address of every other process, as in {"worker 1": ("host2", 2222)}.
    """

    port: int
    others: Mapping[str, tuple[str, int]]


def require_cluster(environment: Mapping[str, str]) -> Cluster:
    """Returns what TF_CONFIG says, if it describes a cluster of workers and this process's place in it.

    Raises:
        UserError: one line that says what is wrong.
    """
    example = '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}'
    text = environment.get("TF_CONFIG", "")
    if not text.strip():
        raise UserError(f"--strategy=multi_worker needs the environment variable TF_CONFIG, such as {example}")
    try:
        found = json.loads(text)
        cluster, task = found["cluster"], found["task"]
        jobs = {str(job): list(hosts) for job, hosts in cluster.items()}
        kind, index = task["type"], int(task["index"])
    except json.JSONDecodeError as error:
        raise UserError(f"TF_CONFIG is not JSON ({error}); it looks like {example}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"TF_CONFIG lacks a part or has a wrong one ({error!r}); it looks like {example}") from error
    strange = [job for job in [*jobs, kind] if job not in _JOBS]
    if strange:
        raise UserError(f"TF_CONFIG has a job {strange[0]!r}; only {' and '.join(_JOBS)} take part")
    if not 0 <= index < len(jobs.get(kind, ())):
        raise UserError(f"TF_CONFIG says {kind} {index}, but its cluster has {len(jobs.get(kind, ()))} of this kind")
    addresses = {f"{job} {place}": _address(host) for job, hosts in jobs.items() for place, host in enumerate(hosts)}
    _, port = addresses.pop(f"{kind} {index}")
    return Cluster(port, addresses)


def _address(text: object) -> tuple[str, int]:
    name, _, port = str(text).rpartition(":")
    if not name or not port.isdigit() or not 0 < int(port) < 65536:
        raise UserError(f"TF_CONFIG has the address {text!r}; it must be host:port")
    return name.strip("[]"), int(port)


def meet(cluster: Cluster, seconds: float) -> None:
    """Returns when every other process listens; this one listens meanwhile, so that the others find it.

    TensorFlow itself waits for them with the interpreter locked: neither a thread nor a signal could end that.

    Args:
        cluster: what `require_cluster` found.
        seconds: how long to wait.

    Raises:
        UserError: this process's port is taken.
        WorkerError: somebody did not come in time.
    """
    end = time.monotonic() + seconds
    missing = dict(cluster.others)
    try:
        listening = socket.create_server(("", cluster.port), backlog=max(len(missing), 1))
    except OSError as error:
        raise UserError(
            f"TF_CONFIG gives this process port {cluster.port}, which is not free ({error.strerror})"
        ) from error
    with listening:
        while missing:
            for name, address in list(missing.items()):
                with contextlib.suppress(OSError), socket.create_connection(address, timeout=1.0):
                    del missing[name]
            if missing and time.monotonic() > end:
                names = ", ".join(f"{name} at {host}:{port}" for name, (host, port) in missing.items())
                raise WorkerError(f"other processes of TF_CONFIG did not start within {seconds:g} seconds: {names}")
            if missing:
                time.sleep(_PAUSE)
