"""A model of an iteration's seconds on N workers: what bounds many of them.

    T(N) = S + W / N + C (a + b N) + N B / r

S: the learner's own work; W: the shards' work on one core, shared by N; C: calls of an iteration, each of which costs
the learner `a` and, for each worker, `b` (pickling, two system calls, its share of the sum); B: bytes that travel to
and from one worker in an iteration; r: bytes per second through the learner, which serves one worker after the other.
All but S and W are measured without the experiment.
"""

from typing import NamedTuple


class Costs(NamedTuple):
    """Of messages.

    Attributes:
        call: a, seconds.
        worker: b, seconds.
        rate: r, bytes/s.
    """

    call: float
    worker: float
    rate: float


class Iteration(NamedTuple):
    """Of an experiment.

    Attributes:
        learner: S, seconds.
        shards: W, seconds on one core.
        calls: C.
        traffic: B, bytes to and from one worker.
    """

    learner: float
    shards: float
    calls: float
    traffic: float


def seconds(one: Iteration, costs: Costs, workers: int) -> dict[str, float]:
    """T(N) by its terms: "learner", "shards", "calls" and "bytes"."""
    return {
        "learner": one.learner,
        "shards": one.shards / workers,
        "calls": one.calls * (costs.call + costs.worker * workers),
        "bytes": workers * one.traffic / costs.rate,
    }


def from_one_worker(total: float, waiting: float, calls: float, traffic: float, costs: Costs) -> Iteration:
    """The experiment's numbers from an iteration on one worker.

    Args:
        total: seconds of the iteration.
        waiting: of them, seconds in which the learner had nothing to do.
        calls: made.
        traffic: bytes that travelled.
        costs: of messages.
    """
    moving = calls * (costs.call + costs.worker) + traffic / costs.rate
    # While the learner waits, the worker works or a message is on its way; what it sends and sums it does itself.
    shards = max(0.0, waiting - calls * costs.call)
    return Iteration(max(0.0, total - shards - moving), shards, calls, traffic)
