"""A learner whose tasks can be spread over shards elsewhere.

The launchers build the learner, ask whether it can be split, and give it a pool. Whoever holds a shard builds a learner
from the same configuration and takes its part: `make_part`. Shapes: `M` tasks.
"""

import abc
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metarl.experiment.errors import UserError
from metarl.experiment.learner import Learner
from metarl.scaling.pool import LocalPool, ShardPool
from metarl.scaling.shard import Shard


class ShardedLearner(Learner):
    """Calls its shards through a pool: one shard with all tasks in this process, unless it is given another."""

    _pool: ShardPool | None = None

    @property
    @abc.abstractmethod
    def num_units(self) -> int:
        """How many tasks can be spread."""

    @abc.abstractmethod
    def make_part(self, first: int, count: int) -> Shard:
        """The shard that holds the tasks [first, first + count); steps no simulation yet."""

    def require_split(self, num_shards: int) -> None:
        """Passes if the tasks can be spread over so many shards.

        Raises:
            UserError: there are too few tasks, or the stop rule needs all of them at one place.
        """
        if num_shards > self.num_units:
            raise UserError(f"{num_shards} shards are too many: {type(self).__name__} has {self.num_units} tasks")

    @property
    def pool(self) -> ShardPool:
        """The shards of the meta-batch; made when first needed, so that configuring steps no simulation."""
        if self._pool is None:
            self._pool = LocalPool([self.make_part(0, self.num_units)])
        return self._pool

    def use_pool(self, pool: ShardPool) -> None:
        """Calls these shards from now on; to be given before the first iteration.

        Raises:
            ValueError: they do not hold this learner's tasks.
        """
        if pool.num_tasks != self.num_units:
            raise ValueError(f"a pool of {pool.num_tasks} tasks for a learner of {self.num_units}")
        self._pool = pool


def sharded(learner: Learner, num_shards: int) -> ShardedLearner:
    """The learner, if its tasks can be spread over so many shards.

    Raises:
        UserError: they cannot.
    """
    if not isinstance(learner, ShardedLearner):
        raise UserError(f"{type(learner).__name__} cannot be spread over workers; launchers.train runs it")
    learner.require_split(num_shards)
    return learner


def split_sizes(num_tasks: int, num_shards: int) -> tuple[int, ...]:
    """Tasks of every shard: as equal as possible, the first ones take the remainder."""
    share, more = divmod(num_tasks, num_shards)
    return tuple(share + (number < more) for number in range(num_shards))


def by_shard(arrays: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The shards' named arrays together: as they are for one shard, else each under 'shard_<number>/'."""
    if len(arrays) == 1:
        return dict(arrays[0])
    return {f"shard_{number}/{name}": value for number, mine in enumerate(arrays) for name, value in mine.items()}


def local_shards(pool: ShardPool) -> Sequence[Any]:
    """The shards of this process; none if they are elsewhere."""
    return pool.shards if isinstance(pool, LocalPool) else ()
