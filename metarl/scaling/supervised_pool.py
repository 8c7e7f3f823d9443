"""What pools have in common whose shards can be lost: accounts, the journal, and how often a shard is replaced.

A worker that is lost is replaced by a new one, which repeats the calls that the old one's state came from (`Journal`)
and then the call that was going on; since a shard's answers depend on nothing else, the result is that of an
undisturbed run, bit for bit.
"""

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

from absl import logging

from metarl.experiment.errors import WorkerError
from metarl.scaling.journal import Journal
from metarl.scaling.part import Part
from metarl.scaling.pool import Report, ShardPool

ATTEMPTS = 3  # for one call, by the same shard
START_SECONDS = 300.0
LOOK_SECONDS = 0.5  # between two looks at the clock while waiting

Request = TypeVar("Request")


@dataclasses.dataclass
class Traffic:
    """What a pool's calls cost the learner.

    Attributes:
        calls: of methods, over all shards at once.
        sent: bytes to the workers.
        received: bytes from them.
        waiting: seconds in which the learner had nothing to do but wait for them.
        replaced: workers.
    """

    calls: int = 0
    sent: int = 0
    received: int = 0
    waiting: float = 0.0
    replaced: int = 0


class SupervisedPool(ShardPool, Generic[Request]):
    """One worker elsewhere per shard.

    Args:
        config: gin text of the experiment.
        sizes: tasks of every shard.
        timeout: seconds after which a worker that was asked something counts as lost.
        threads: of each worker.

    Attributes:
        traffic: what the calls have cost so far.
    """

    def __init__(self, config: str, sizes: Sequence[int], *, timeout: float, threads: int):
        self.sizes = tuple(sizes)
        self.traffic = Traffic()
        self._timeout, self._threads = timeout, threads
        self._parts = [Part(config, start, stop - start) for start, stop in self.ranges()]
        self._journal: Journal[Request] = Journal(())

    def _call(
        self, method: str, own: Sequence[Mapping[str, Any]], common: Mapping[str, Any], report: Report | None
    ) -> list[Any]:
        """See `ShardPool._call`.

        Raises:
            UserError: raised by a shard.
            NonFiniteError: raised by a shard.
            WorkerError: a shard was lost again and again.
        """
        request = self._request(method, own, common)
        self._journal.begin(method, common)
        self.traffic.calls += 1
        results = self._answers(request, report)
        self._journal.done(method, common, request)
        return results

    def _await_start(self) -> None:
        """Waits until every worker has built its shard; raises as `_call` does."""
        self._journal = Journal(self._answers(None, None)[0])

    @abc.abstractmethod
    def _request(self, method: str, own: Sequence[Mapping[str, Any]], common: Mapping[str, Any]) -> Request:
        """One call in the form in which it travels, and in which the journal keeps it."""

    @abc.abstractmethod
    def _answers(self, request: Request | None, report: Report | None) -> list[Any]:
        """Asks all workers and waits for their answers, in task order; without a request, for the start's."""

    def _count_loss(self, number: int, times: int, doing: str | None, why: str) -> None:
        """Passes if the worker of a shard may be replaced once more.

        Args:
            number: of the shard.
            times: that it was lost in this call, this one included.
            doing: the method; None: starting.
            why: what happened.

        Raises:
            WorkerError: it was lost too often.
        """
        what = "starting" if doing is None else repr(doing)
        start, stop = self.ranges()[number]
        name = f"worker {number} (tasks {start}-{stop - 1})"
        if times >= ATTEMPTS:
            raise WorkerError(f"{name} was lost {times} times in {what}, the last time because it {why}")
        logging.warning("%s %s in %s; starting another in its place", name, why, what)
        self.traffic.replaced += 1


def told_of(number: int, known: Exception | None, traceback: str) -> str:
    """Logs what a worker raised, and returns why it is lost; `known` errors are the learner's own and raised here."""
    if known is not None:
        raise known
    text = traceback.rstrip()
    logging.error("worker %d raised:\n%s", number, text)
    return f"raised {text.splitlines()[-1]}"
