"""Shards in actors of a Ray cluster, replaced when they are lost (extra `[ray]`).

An actor holds the same shard, built in the same way, as a worker process does. Ray repeats nothing by itself: an actor
that dies, does not answer in time or raises is replaced here.
"""

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from absl import logging

from metarl.experiment.errors import UserError
from metarl.scaling import messages, worker
from metarl.scaling.part import Part
from metarl.scaling.pool import Report
from metarl.scaling.supervised_pool import LOOK_SECONDS, START_SECONDS, SupervisedPool, told_of


class ShardActor:
    """One shard, inside an actor; what it raises travels as an answer, so that Ray sees no failure.

    Args:
        part: which shard.
        threads: of every library.
        search_path: the learner's, where the modules lie that gin files import.
    """

    def __init__(self, part: Part, threads: int, search_path: Sequence[str] = ()):
        sys.path += [folder for folder in search_path if folder not in sys.path]
        self._part, self._threads = part, threads
        self._shard: Any = None
        self._failed: bytes | None = None  # what went wrong on the way to the state that the next call builds on

    def start(self) -> bytes:
        """Builds the shard; answers with the names of `Shard.remembered`."""
        answer = self._answer(self._build)
        if self._shard is None:
            self._failed = answer
        return answer

    def repeat(self, method: str, own: bytes, common: bytes) -> None:
        """Repeats a call of the actor in whose place this one is; the next `call` tells of a failure."""
        try:
            self._work(method, own, common)
        except Exception as error:
            self._failed = self._failed or worker.raised(0, error)

    def call(self, method: str, own: bytes, common: bytes) -> bytes:
        """Calls a method of the shard with both groups of arguments."""
        return self._failed or self._answer(lambda: self._work(method, own, common))

    def pid(self) -> int:
        """The actor's process."""
        import os

        return os.getpid()

    def _build(self) -> tuple[str, ...]:
        self._shard = worker.build(self._part, self._threads)
        return tuple(self._shard.remembered)

    def _work(self, method: str, own: bytes, common: bytes) -> Any:
        return getattr(self._shard, method)(**messages.loads(common), **messages.loads(own))

    def _answer(self, work: Any) -> bytes:
        try:
            return messages.dumps((worker.RESULT, work()))
        except Exception as error:
            return worker.raised(0, error)


class _Request(NamedTuple):
    """One call: each shard's own arguments as bytes, and those of all as a reference into Ray's store."""

    method: str
    own: tuple[bytes, ...]
    common: Any
    size: int


class RayPool(SupervisedPool[_Request]):
    """One actor per shard.

    Args:
        ray: connected to a cluster, see `ray_cluster.joined`.
        config: gin text of the experiment.
        sizes: tasks of every shard.
        timeout: seconds after which an actor that was asked something counts as lost.
        threads: of each actor, and the CPUs that it takes of the cluster.

    Raises:
        UserError: the cluster has too few CPUs, or the experiment does not build in an actor.
        WorkerError: the actors do not start.
    """

    def __init__(self, ray: Any, config: str, sizes: Sequence[int], *, timeout: float, threads: int = 1):
        super().__init__(config, sizes, timeout=timeout, threads=threads)
        self._ray = ray
        needed, there = threads * len(self.sizes), int(ray.cluster_resources().get("CPU", 0))
        if needed > there:
            raise UserError(
                f"{len(self.sizes)} workers of {threads} CPU need {needed} CPUs, and the cluster has {there}"
            )
        free = int(ray.available_resources().get("CPU", 0))
        if needed > free:
            logging.warning("the cluster has %d of the %d CPUs free; waiting for the others", free, needed)
        self._actor_class = ray.remote(num_cpus=threads, max_restarts=0, max_task_retries=0)(ShardActor)
        self._actors = [self._create(number) for number in range(len(self.sizes))]
        self._started = [actor.start.remote() for actor in self._actors]
        try:
            self._await_start()
        except BaseException:
            self.close()
            raise

    def _call(
        self, method: str, own: Sequence[Mapping[str, Any]], common: Mapping[str, Any], report: Report | None
    ) -> list[Any]:
        """As of all supervised pools; the actors do not report what they are doing."""
        if report is not None:
            report(f"{method} on {len(self.sizes)} actors")
        return super()._call(method, own, common, None)

    def _request(self, method: str, own: Sequence[Mapping[str, Any]], common: Mapping[str, Any]) -> _Request:
        shared = messages.dumps(common)
        return _Request(method, tuple(messages.dumps(dict(mine)) for mine in own), self._ray.put(shared), len(shared))

    def pids(self) -> list[int]:
        """The actors' processes, in task order."""
        return list(self._ray.get([actor.pid.remote() for actor in self._actors]))

    def close(self) -> None:
        """Ends all actors."""
        for actor in self._actors:
            self._ray.kill(actor)
        self._actors = []

    def _create(self, number: int) -> Any:
        return self._actor_class.remote(self._parts[number], self._threads, sys.path)

    def _answers(self, request: _Request | None, report: Report | None) -> list[Any]:
        del report
        results: dict[int, Any] = {}
        lost = [0] * len(self.sizes)
        asked: dict[Any, int] = {}
        deadlines: dict[int, float] = {}
        patience = self._timeout if request is not None else max(START_SECONDS, self._timeout)

        def ask(number: int, extra: float = 0.0) -> None:
            asked[self._send(number, request)] = number
            deadlines[number] = time.monotonic() + patience + extra

        def replace(number: int, why: str) -> None:
            lost[number] += 1
            self._count_loss(number, lost[number], None if request is None else request.method, why)
            self._ray.kill(self._actors[number])
            self._actors[number] = self._create(number)
            self._started[number] = self._actors[number].start.remote()
            earlier = self._journal.calls() if request is not None else []
            for one in earlier:  # an actor works in order
                self._actors[number].repeat.remote(*self._sent(number, one))
            ask(number, START_SECONDS + len(earlier) * self._timeout)

        for number in range(len(self.sizes)):
            ask(number)
        while len(results) < len(self.sizes):
            began = time.monotonic()
            ready, _ = self._ray.wait(list(asked), num_returns=1, timeout=LOOK_SECONDS)
            now = time.monotonic()
            self.traffic.waiting += now - began
            for reference in ready:
                number = asked.pop(reference)
                try:
                    data = self._ray.get(reference)
                except self._ray.exceptions.RayError as error:
                    replace(number, f"was lost ({' '.join(str(error).strip().splitlines()[0].split())})")
                    continue
                self.traffic.received += len(data)
                kind, *content = messages.loads(data)
                if kind == worker.RESULT:
                    results[number] = content[0]
                    continue
                replace(number, told_of(number, *content[1:]))
            for reference, number in list(asked.items()):
                if now > deadlines[number]:
                    del asked[reference]
                    replace(number, f"did not answer for {patience:g} seconds")
        return [results[number] for number in range(len(self.sizes))]

    def _send(self, number: int, request: _Request | None) -> Any:
        """The reference to an answer; without a request, to that of the start."""
        if request is None:
            return self._started[number]
        return self._actors[number].call.remote(*self._sent(number, request))

    def _sent(self, number: int, request: _Request) -> tuple[str, bytes, Any]:
        self.traffic.sent += len(request.own[number]) + request.size
        return request.method, request.own[number], request.common
