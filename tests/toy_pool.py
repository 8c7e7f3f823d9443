"""A sharded learner of a few numbers whose last shard can be killed, hang or raise, for tests of process pools."""

import os
import signal
import time
from pathlib import Path

import gin
import numpy as np

from metarl.experiment.errors import UserError
from metarl.experiment.learner import NonFiniteError
from metarl.scaling import messages
from metarl.scaling.pool import LocalPool
from metarl.scaling.shard import Shard
from metarl.scaling.sharded_learner import ShardedLearner, split_sizes
from metarl.seeding import keyed_generator


class PoolShard(Shard):
    """Keeps theta plus keyed noise per task; its answers show whether the kept numbers are there."""

    remembered = ("use", "collect")

    def __init__(self, num_tasks, marker=None):
        self.num_tasks = num_tasks
        self._marker = marker
        self._scale = self._kept = None

    def use(self, scale):
        self._scale = scale

    def collect(self, parameters, tasks, seed, iteration, *, keep=True, mishap=None, report=None):
        if report:
            report(f"collecting {tasks.indices[0]}")
        noise = [keyed_generator(seed, iteration, "toy", int(index)).normal() for index in tasks.indices]
        found = self._scale * (parameters + np.array(noise))
        if keep:
            self._kept = found
        self._suffer(mishap)
        return found

    def evaluate(self, key, parameters, what, mishap=None):
        self._suffer(mishap)
        return np.sum(self._kept * parameters), self._kept

    def process(self):
        return os.getpid()

    def _suffer(self, mishap):
        """In the shard of one task: once, which the marker file remembers, or "always"."""
        if mishap is None or self.num_tasks != 1 or self._marker is None:
            return
        if not mishap.startswith("always"):
            try:
                Path(self._marker).touch(exist_ok=False)
            except FileExistsError:
                return
        kind = mishap.removeprefix("always ")
        if kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif kind == "exit":
            os._exit(7)
        elif kind == "hang":
            time.sleep(1000)
        elif kind == "raise":
            raise RuntimeError("a toy broke")
        elif kind == "user":
            raise UserError("a toy is misused")
        elif kind == "nan":
            raise NonFiniteError("a toy is nan")


class TravellingPool(LocalPool):
    """Shards of this process whose arguments and results travel as bytes, as between processes."""

    def call(self, method, own=None, *, report=None, **common):
        common = messages.loads(messages.dumps(common))
        own = None if own is None else messages.loads(messages.dumps(list(own)))
        return [messages.loads(messages.dumps(result)) for result in super().call(method, own, report=report, **common)]


def split(learner, num_shards):
    """The learner with its tasks in so many shards, each built by a learner of its own, as workers do."""
    sizes = split_sizes(learner.num_units, num_shards)
    firsts = [sum(sizes[:number]) for number in range(num_shards)]
    learner.require_split(num_shards)
    learner.use_pool(
        TravellingPool([learner.make_part(first, size) for first, size in zip(firsts, sizes, strict=True)])
    )
    return learner


@gin.configurable(module="toy")
class ToyPoolLearner(ShardedLearner):
    def __init__(self, num_tasks=3, marker=None):
        self._num_tasks, self._marker = num_tasks, marker
        self.iteration = 0

    @property
    def num_units(self):
        return self._num_tasks

    def make_part(self, first, count):
        return PoolShard(count, self._marker)

    def run_iteration(self, report):
        raise NotImplementedError

    def summary_line(self, metrics):
        return ""

    def state(self):
        return {}

    def restore(self, arrays):
        pass

    def final_table(self, report):
        return []

    def crash_evidence(self):
        return {}
