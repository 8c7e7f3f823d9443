"""Shards in worker processes of this machine, replaced when they are killed, do not answer in time, or raise."""

import multiprocessing
import os
import signal
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from multiprocessing import connection, util
from typing import Any, NamedTuple

from metarl.scaling import cores, messages, worker
from metarl.scaling.part import Part
from metarl.scaling.pool import Report
from metarl.scaling.supervised_pool import LOOK_SECONDS, START_SECONDS, SupervisedPool, Traffic, told_of


class _Request(NamedTuple):
    """One call as bytes: each shard's own arguments, and those of all, made into bytes only once."""

    method: str
    own: tuple[Mapping[str, Any], ...]
    common: bytes


class _LostError(Exception):
    """A worker is gone, hangs or raised; the message says which."""


class _Worker:
    """One process and the channel to it."""

    def __init__(self, number: int, part: Part, threads: int, timeout: float, traffic: Traffic):
        self.number, self.part = number, part
        self.deadline = time.monotonic() + max(START_SECONDS, timeout)
        self._timeout, self._traffic = timeout, traffic
        context = multiprocessing.get_context("spawn")
        self.channel, theirs = context.Pipe()
        self._limit_transfers()
        # Born with the signals blocked: a Ctrl-C while it still imports is not its business either.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            self.process = context.Process(
                target=worker.main, args=(theirs, part, threads), name=f"shard-{number}", daemon=True
            )
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()

    def _limit_transfers(self) -> None:
        """Lets neither side of a transfer wait for ever for a worker that has stopped in the middle of it."""
        limit = struct.pack("ll", int(self._timeout), int(self._timeout % 1 * 1e6) or 1)
        with socket.socket(fileno=os.dup(self.channel.fileno())) as half:
            half.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
            half.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)

    def send(self, number: int, request: _Request, told: bool) -> None:
        """Asks; raises _LostError."""
        head = messages.dumps((number, request.method, request.own[self.number], told))
        try:
            self.channel.send_bytes(head)
            self.channel.send_bytes(request.common)
        except OSError as error:
            raise _LostError(self._fate(error)) from error
        self._traffic.sent += len(head) + len(request.common)
        self.deadline = max(self.deadline, time.monotonic() + self._timeout)

    def receive(self) -> tuple[Any, ...]:
        """The next message, which is there; raises _LostError."""
        try:
            data = self.channel.recv_bytes()
        except (OSError, EOFError) as error:
            raise _LostError(self._fate(error)) from error
        self._traffic.received += len(data)
        self.deadline = time.monotonic() + self._timeout
        message: tuple[Any, ...] = messages.loads(data)
        return message

    def _fate(self, error: Exception) -> str:
        if isinstance(error, BlockingIOError):
            return f"did not take part in a transfer for {self._timeout:g} seconds"
        self.process.join(5.0)
        code = self.process.exitcode
        if code is not None and code < 0:
            return f"was killed by {signal.Signals(-code).name}"
        return "closed its channel" if code is None else f"ended with exit code {code}"

    def end(self) -> None:
        """Ends the process, whatever it is doing, and clears it away."""
        self.channel.close()
        self.process.kill()
        self.process.join()


class ProcessPool(SupervisedPool[_Request]):
    """One worker process per shard.

    Args:
        config: gin text of the experiment.
        sizes: tasks of every shard.
        timeout: seconds without a sign of life after which a worker that was asked something counts as lost.
        threads: of each worker; None: its share of the cores.
    """

    def __init__(self, config: str, sizes: Sequence[int], *, timeout: float, threads: int | None = None):
        share = max(1, cores.usable() // len(sizes))
        super().__init__(config, sizes, timeout=timeout, threads=threads or share)
        self._number = 0
        self._workers: list[_Worker] = []
        # Also at an exit that passes by `close`, and before multiprocessing waits for workers that nobody ends.
        self._finalizer = util.Finalize(self, _end_all, args=(self._workers,), exitpriority=10)

    def start(self) -> None:
        """Starts the workers and waits for them; the first call does, if nobody did before.

        Raises:
            UserError: the experiment does not build in a worker.
            WorkerError: the workers do not start.
        """
        try:
            for number in range(len(self.sizes)):
                self._workers.append(self._start(number))
            self._await_start()
        except BaseException:
            _end_all(self._workers)
            raise

    @property
    def processes(self) -> list[Any]:
        """The worker processes, in task order."""
        return [one.process for one in self._workers]

    def _call(
        self, method: str, own: Sequence[Mapping[str, Any]], common: Mapping[str, Any], report: Report | None
    ) -> list[Any]:
        """As of all supervised pools; the first shard's reports are passed on."""
        if not self._workers:
            self.start()
        return super()._call(method, own, common, report)

    def _request(self, method: str, own: Sequence[Mapping[str, Any]], common: Mapping[str, Any]) -> _Request:
        return _Request(method, tuple(own), messages.dumps(common))

    def close(self) -> None:
        """Ends all workers."""
        self._finalizer()

    def _start(self, number: int) -> _Worker:
        return _Worker(number, self._parts[number], self._threads, self._timeout, self.traffic)

    def _answers(self, request: _Request | None, report: Report | None) -> list[Any]:
        first_number = self._number + 1
        results: dict[int, Any] = {}
        lost = [0] * len(self.sizes)
        awaited: dict[int, int] = {}  # of a worker: the number of the request whose answer counts

        def ask(number: int) -> None:
            while True:
                try:
                    if request is not None:
                        self._number += 1
                        self._workers[number].send(self._number, request, report is not None)
                    awaited[number] = self._number if request is not None else 0
                    return
                except _LostError as error:
                    replace(number, str(error))

        def replace(number: int, why: str) -> None:
            """Starts a new worker on the same shard and lets it catch up."""
            while True:
                lost[number] += 1
                self._count_loss(number, lost[number], None if request is None else request.method, why)
                self._workers[number].end()
                self._workers[number] = self._start(number)
                try:
                    for earlier in self._journal.calls():
                        self._number += 1
                        self._workers[number].send(self._number, earlier, False)
                    return
                except _LostError as error:
                    why = str(error)

        for number in range(len(self.sizes)):
            ask(number)
        while len(results) < len(self.sizes):
            waiting = {self._workers[n].channel: n for n in range(len(self.sizes)) if n not in results}
            began = time.monotonic()
            ready = connection.wait(list(waiting), LOOK_SECONDS)
            now = time.monotonic()
            self.traffic.waiting += now - began
            answering = [waiting[channel] for channel in ready]  # type: ignore[index]
            for number in answering:
                try:
                    kind, of, *content = self._workers[number].receive()
                except _LostError as error:
                    replace(number, str(error))
                    ask(number)
                    continue
                if kind == worker.REPORT:
                    if report is not None and number == 0 and of == awaited[number]:
                        report(content[0])
                elif kind == worker.RAISED and (of >= first_number or of == 0):
                    replace(number, told_of(number, *content))
                    ask(number)
                elif of == awaited[number] and kind in (worker.RESULT, worker.READY):
                    results[number] = content[0]
            for number in waiting.values():
                if number not in results and number not in answering and now > self._workers[number].deadline:
                    replace(number, f"did not answer for {self._timeout:g} seconds")
                    ask(number)
        return [results[number] for number in range(len(self.sizes))]


def _end_all(workers: list[_Worker]) -> None:
    for one in workers:
        one.end()
    workers.clear()
