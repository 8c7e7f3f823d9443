"""How a learner calls its shards, wherever they are.

A learner asks for a method of all its shards by name and gets the results in task order; it does not know whether they
live in this process, in worker processes, on replicas or on a cluster. Shapes: `M` tasks.
"""

import abc
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from metarl.compiled import Compiled
from metarl.scaling.shard import TaskBatch

Report = Callable[[str], None]


class ShardPool(abc.ABC):
    """The shards of one learner.

    Attributes:
        sizes: tasks of every shard, in task order; their sum is M.
    """

    sizes: tuple[int, ...]

    @property
    def num_tasks(self) -> int:
        """M, of all shards together."""
        return sum(self.sizes)

    def call(
        self,
        method: str,
        own: Sequence[Mapping[str, Any]] | None = None,
        *,
        report: Report | None = None,
        **common: Any,
    ) -> list[Any]:
        """Calls a method of every shard, side by side where they can, and returns the results in task order.

        Args:
            method: its name.
            own: keyword arguments of each shard; None for none.
            report: is told what is being done, if the method takes an argument of this name.
            common: keyword arguments of all shards.

        Raises:
            UserError: raised by a shard.
            NonFiniteError: raised by a shard.
            WorkerError: shards elsewhere were lost for good.
        """
        return self._call(method, self._each(own), common, report)

    @abc.abstractmethod
    def _call(
        self, method: str, own: Sequence[Mapping[str, Any]], common: Mapping[str, Any], report: Report | None
    ) -> list[Any]:
        """What `call` does; `own` has the arguments of every shard."""

    def _each(self, own: Sequence[Mapping[str, Any]] | None) -> Sequence[Mapping[str, Any]]:
        return ({},) * len(self.sizes) if own is None else own

    def collect(self, tasks: TaskBatch, *, report: Report | None = None, **common: Any) -> list[Any]:
        """`Shard.collect` of every shard on its part of M tasks; `common` as there."""
        return self.call("collect", [{"tasks": part} for part in self.parts(tasks)], report=report, **common)

    def evaluate(self, own: Sequence[Mapping[str, Any]] | None = None, **common: Any) -> tuple[Any, list[Any]]:
        """`Shard.evaluate` of every shard: (the sum of their gradients or products, their scalars in task order).

        Args:
            own: keyword arguments of each shard; None for none.
            common: of all shards.
        """
        results = self.call("evaluate", own, **common)
        return summed([sums for sums, _ in results]), [scalars for _, scalars in results]

    def ranges(self) -> list[tuple[int, int]]:
        """[start, stop) of every shard's tasks among the M."""
        stops = [sum(self.sizes[: number + 1]) for number in range(len(self.sizes))]
        return [(stop - size, stop) for size, stop in zip(self.sizes, stops, strict=True)]

    def parts(self, tasks: TaskBatch) -> list[TaskBatch]:
        """M tasks split over the shards, in order."""
        return [tasks.part(start, stop) for start, stop in self.ranges()]

    @abc.abstractmethod
    def close(self) -> None:
        """Ends what the pool started; the pool cannot be used any more."""


class LocalPool(ShardPool):
    """Shards of this process, called one after the other.

    Args:
        shards: in task order.
    """

    def __init__(self, shards: Sequence[Any]):
        self.shards = list(shards)
        self.sizes = tuple(shard.num_tasks for shard in self.shards)

    def _call(
        self, method: str, own: Sequence[Mapping[str, Any]], common: Mapping[str, Any], report: Report | None
    ) -> list[Any]:
        told = {} if report is None else {"report": report}
        return [getattr(shard, method)(**common, **mine, **told) for shard, mine in zip(self.shards, own, strict=True)]

    def close(self) -> None:
        """There is nothing to end."""


def summed(sums: Sequence[Any]) -> Any:
    """The sum of equal nests of tensors or arrays, in their order; None where all are None."""
    if len(sums) == 1 or sums[0] is None:
        return sums[0]
    return _sum(list(sums))


@Compiled
def _sum(sums: list[Any]) -> Any:
    return tf.nest.map_structure(lambda *parts: tf.reduce_sum(tf.stack(parts), axis=0), *sums)
