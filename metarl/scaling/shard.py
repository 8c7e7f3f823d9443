"""The shard: a set of tasks behind two calls, the unit that can be moved to another process.

`collect` samples and adapts, and keeps what the meta-update needs in a cache under a key. `evaluate` returns sums
over the shard's tasks of a gradient and per-task scalars on that cache. Only parameters, gradients and scalars travel.
The learner combines shards in task order and does not know how many there are; one process is the case of one shard.
"""

import abc
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

Collected = TypeVar("Collected")


class TaskBatch(NamedTuple):
    """Tasks to work on.

    Attributes:
        tasks: [M, G] what each task is, for example a goal.
        indices: [M] int, index of each task in the whole meta-batch or goal set: it keys the task's random numbers.
    """

    tasks: np.ndarray
    indices: np.ndarray

    def part(self, start: int, stop: int) -> "TaskBatch":
        """The tasks [start, stop)."""
        return TaskBatch(self.tasks[start:stop], self.indices[start:stop])


class Shard(abc.ABC, Generic[Collected]):
    """A fixed number of tasks worked on together.

    Attributes:
        num_tasks: M of this shard.
        remembered: names of the methods that leave something behind here, in the order in which one builds on the
            other. A replacement of a lost shard repeats the latest call of each, but for calls with `keep` False.
    """

    num_tasks: int
    remembered: tuple[str, ...] = ("collect",)

    @abc.abstractmethod
    def collect(self, parameters: Any, tasks: TaskBatch, seed: int, iteration: int) -> Collected:
        """Samples and adapts with the given meta-parameters, and keeps the result for `evaluate`.

        Repeating the call with the same arguments gives the same result: that is how a lost worker is replaced.
        """

    @abc.abstractmethod
    def evaluate(self, key: Any, parameters: Any, what: str) -> tuple[Any, Any]:
        """Returns (sum over tasks of a gradient or product, scalars per task [M]) on the data kept under `key`."""
