"""Shards on the replicas of a `tf.distribute` strategy, of this process or of several.

Every process runs the same learner on the same numbers. A shard lives on each replica; sums over tasks are all-reduced
through the strategy, per-task scalars travel in the same vector, and whatever else shards return is gathered in task
order, so that all processes take the same decisions. A process that is lost cannot be replaced by the others: they stop
with one line, and the run goes on from its checkpoint.
"""

import concurrent.futures
import hashlib
import math
import pickle
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from absl import logging

from metarl.compiled import Compiled
from metarl.experiment.errors import WorkerError
from metarl.experiment.learner import NonFiniteError
from metarl.scaling.pool import Report, ShardPool
from metarl.scaling.sharded_learner import split_sizes

_WORD = 4  # bytes of the integers that objects travel as


class LostPeerError(WorkerError):
    """Another process of the strategy has ended, hangs, or cannot be reached."""


class Replicas:
    """The replicas of a strategy, and exchange between all of its processes.

    Args:
        strategy: a `MirroredStrategy` or a `MultiWorkerMirroredStrategy`.

    Attributes:
        devices: of this process's replicas.
        total: replicas of all processes.
        first: position of this process's first replica among them.
        chief: whether this process is the one that writes.
    """

    def __init__(self, strategy: tf.distribute.Strategy):
        self._strategy = strategy
        self.devices: tuple[str, ...] = strategy.extended.worker_devices
        self.total: int = strategy.num_replicas_in_sync
        resolver = strategy.cluster_resolver
        self.first = 0
        if resolver is not None and resolver.task_id is not None and self.total > len(self.devices):
            chiefs = resolver.cluster_spec().as_dict().get("chief", ())
            process = resolver.task_id + (len(chiefs) if resolver.task_type == "worker" else 0)
            self.first = process * len(self.devices)
        self.chief = self.first == 0
        self._reduced: dict[Any, Callable[[Any], Any]] = {}

    @property
    def local(self) -> range:
        """Positions of this process's replicas."""
        return range(self.first, self.first + len(self.devices))

    @property
    def alone(self) -> bool:
        """Whether this process holds all replicas."""
        return len(self.devices) == self.total

    def all_reduce(self, vectors: Sequence[tf.Tensor]) -> tf.Tensor:
        """The sum over all replicas of one vector each; the same bits everywhere.

        Args:
            vectors: [n], one per replica of this process.

        Raises:
            LostPeerError: another process is gone, or did not come here in time.
        """
        values = self._strategy.experimental_distribute_values_from_function(
            lambda context: vectors[context.replica_id_in_sync_group - self.first]
        )
        form = vectors[0].dtype, *vectors[0].shape
        if form not in self._reduced:
            self._reduced[form] = tf.function(self._all_reduce, autograph=False)
        try:
            return self._strategy.experimental_local_results(self._reduced[form](values))[0]
        except (
            tf.errors.UnavailableError,
            tf.errors.DeadlineExceededError,
            tf.errors.AbortedError,
            tf.errors.CancelledError,
            tf.errors.InternalError,
            tf.errors.FailedPreconditionError,
        ) as error:
            if self.alone:
                raise
            raise LostPeerError(f"lost another process of the strategy: {_reason(error)}") from error

    def _all_reduce(self, values: Any) -> Any:
        def of_replica(vector: tf.Tensor) -> tf.Tensor:
            # The identity puts the vector on the replica's device, which the strategy reads off it.
            return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, tf.identity(vector))

        return self._strategy.run(of_replica, args=(values,))

    def gather(self, mine: Any) -> list[Any]:
        """What every process gives, in order of the processes.

        Raises:
            LostPeerError: another process is gone, or did not come here in time.
        """
        if self.alone:
            return [mine]
        processes, me = self.total // len(self.devices), self.first // len(self.devices)
        # The pickles come from processes that run the same program with the same rights.
        payload = pickle.dumps(mine)
        words = np.frombuffer(payload + bytes(-len(payload) % _WORD), np.int32)
        sizes = np.zeros([processes, 2], np.int32)
        sizes[me] = len(payload), len(words)
        sizes = self._all_reduce_words(sizes.reshape(-1)).reshape(processes, 2)
        starts = np.cumsum(sizes[:, 1]) - sizes[:, 1]
        # Every length is a compiled function of its own, hence powers of two.
        slots = np.zeros(1 << int(sizes[:, 1].sum() - 1).bit_length(), np.int32)
        slots[starts[me] : starts[me] + len(words)] = words
        slots = self._all_reduce_words(slots)
        return [
            pickle.loads(slots[start : start + count].tobytes()[:length])
            for start, (length, count) in zip(starts, sizes, strict=True)
        ]

    def _all_reduce_words(self, words: np.ndarray) -> np.ndarray:
        nothing = np.zeros_like(words)
        vectors = [tf.constant(words if number == 0 else nothing) for number in range(len(self.devices))]
        return self.all_reduce(vectors).numpy()

    def from_chief(self, mine: Any) -> Any:
        """What the chief gives; the others may give None."""
        return self.gather(mine if self.chief else None)[0]


class ReplicaPool(ShardPool):
    """One shard per replica.

    Args:
        replicas: of the strategy.
        num_tasks: M.
        make_shard: (first task, number of tasks) -> shard. Every shard needs compiled functions of its own, because
            those remember a device.
    """

    def __init__(self, replicas: Replicas, num_tasks: int, make_shard: Callable[[int, int], Any]):
        self._replicas = replicas
        self.sizes = split_sizes(num_tasks, replicas.total)
        ranges = self.ranges()
        self.shards = []
        for number, device in zip(replicas.local, replicas.devices, strict=True):
            start, stop = ranges[number]
            with tf.device(device):
                self.shards.append(make_shard(start, stop - start))
        self._threads = concurrent.futures.ThreadPoolExecutor(len(self.shards), "replica")
        self._packs = [Compiled(_pack) for _ in self.shards]

    def _call(
        self, method: str, own: Sequence[Mapping[str, Any]], common: Mapping[str, Any], report: Report | None
    ) -> list[Any]:
        """See `ShardPool._call`.

        Raises:
            LostPeerError: another process is gone.
            WorkerError: a shard of another process raised; NonFiniteError if it raised that.
        """
        if self._replicas.alone:
            return self._local(method, own, common, report)
        error: Exception | None = None
        mine: dict[str, Any] = {"given": _digest(common)}
        try:
            mine["results"] = _as_arrays(self._local(method, own, common, report))
        except Exception as raised:
            error = raised
            mine["failed"] = traceback.format_exc(), str(raised), isinstance(raised, NonFiniteError)
        found = self._replicas.gather(mine)  # even after an error: the others wait here
        if error is not None:
            raise error
        for part in found:
            if "failed" in part:
                text, message, not_finite = part["failed"]
                if not_finite:
                    raise NonFiniteError(message)
                logging.error("a shard of another process raised:\n%s", text.rstrip())
                raise WorkerError(f"a shard of another process raised {text.rstrip().splitlines()[-1]}")
        if any(part["given"] != found[0]["given"] for part in found):
            raise WorkerError(f"the processes give {method!r} different numbers: are their machines alike?")
        return [result for part in found for result in part["results"]]

    def evaluate(self, own: Sequence[Mapping[str, Any]] | None = None, **common: Any) -> tuple[Any, list[Any]]:
        """See `ShardPool.evaluate`; one vector with the sums and all scalars is reduced over the replicas.

        Raises:
            LostPeerError: another process is gone.
        """
        results = self._local("evaluate", self._each(own), common, None)
        total, width = len(self.sizes), max(self.sizes)
        layout = _Layout(*results[0])
        vectors = []
        for pack, number, device, result in zip(
            self._packs, self._replicas.local, self._replicas.devices, results, strict=True
        ):
            with tf.device(device):
                leaves = [np.asarray(leaf) for leaf in tf.nest.flatten(result[1])]
                lengths = _in_slot(np.array(len(leaves[0])), number, total)
                slots = [_in_slot(_padded(leaf, width), number, total) for leaf in leaves]
                vectors.append(pack(tf.nest.flatten(result[0]) if layout.has_sums else [], [lengths, *slots]))
        return layout.unpacked(self._replicas.all_reduce(vectors), total, width)

    def _local(
        self, method: str, own: Sequence[Mapping[str, Any]], common: Mapping[str, Any], report: Report | None
    ) -> list[Any]:
        """The results of this process's shards, each called on its device from a thread of its own."""
        told = {} if report is None else {"report": report}

        def work(shard: Any, device: str, mine: Mapping[str, Any]) -> Any:
            with tf.device(device):
                return getattr(shard, method)(**common, **mine, **told)

        mine = [own[number] for number in self._replicas.local]
        jobs = [
            self._threads.submit(work, *call) for call in zip(self.shards, self._replicas.devices, mine, strict=True)
        ]
        concurrent.futures.wait(jobs)
        return [job.result() for job in jobs]

    def close(self) -> None:
        """Ends the threads."""
        self._threads.shutdown()


class _Layout(NamedTuple):
    """How an answer lies in a vector: its sums, how many scalars each shard has, then those in a slot per shard.

    Attributes:
        sums: an answer's sums, or None.
        scalars: an answer's scalars, [per task or per shard, ...].
    """

    sums: Any
    scalars: Any

    def unpacked(self, vector: tf.Tensor, total: int, width: int) -> tuple[Any, list[Any]]:
        """The sums as tensors, and each shard's scalars as arrays."""
        host, start = vector.numpy(), 0

        def taken(shape: Sequence[int]) -> np.ndarray:
            nonlocal start
            start += math.prod(shape)
            return host[start - math.prod(shape) : start].reshape(shape)

        sums = tf.nest.map_structure(lambda leaf: tf.constant(taken(leaf.shape)), self.sums) if self.has_sums else None
        lengths = taken([total]).astype(int)
        slots = tf.nest.map_structure(lambda leaf: taken([total, width, *leaf.shape[1:]]), self.scalars)
        return sums, [tf.nest.map_structure(lambda slot, n=n: slot[n, : lengths[n]], slots) for n in range(total)]

    @property
    def has_sums(self) -> bool:
        """Whether there are sums."""
        return self.sums is not None


def _pack(sums: list[tf.Tensor], scalars: list[tf.Tensor]) -> tf.Tensor:
    return tf.concat([tf.reshape(tf.cast(x, tf.float32), [-1]) for x in [*sums, *scalars]], axis=0)


def _padded(scalars: np.ndarray, width: int) -> np.ndarray:
    """[n, ...] with zeros up to [width, ...]."""
    return np.pad(scalars, [(0, width - len(scalars)), *[(0, 0)] * (scalars.ndim - 1)])


def _in_slot(mine: np.ndarray, number: int, total: int) -> np.ndarray:
    """[total, ...], zero but for one shard's own."""
    slots = np.zeros([total, *mine.shape], np.float32)
    slots[number] = mine
    return slots


def _as_arrays(nest: Any) -> Any:
    """The nest with arrays for tensors."""
    if isinstance(nest, tf.Tensor):
        return nest.numpy()
    if isinstance(nest, dict):
        return {key: _as_arrays(value) for key, value in nest.items()}
    if isinstance(nest, tuple | list):
        parts = [_as_arrays(part) for part in nest]
        return type(nest)(*parts) if hasattr(nest, "_fields") else type(nest)(parts)
    return nest


def _digest(common: Any) -> str:
    """A fingerprint of the arguments that all shards share: of their structure and of the bytes of their arrays.

    Pickles would not do: they also tell which objects are the same one.
    """
    found = hashlib.sha256()

    def add(nest: Any) -> None:
        if isinstance(nest, Mapping):
            nest = [part for key in sorted(nest) for part in (key, nest[key])]
        if isinstance(nest, tuple | list):
            for part in nest:
                add(part)
        elif isinstance(nest, tf.Tensor | np.ndarray):
            found.update(np.ascontiguousarray(nest).tobytes())
        else:
            found.update(repr(nest).encode())

    add(common)
    return found.hexdigest()


def _reason(error: tf.errors.OpError) -> str:
    """The line of a collective's error that says what happened."""
    if isinstance(error, tf.errors.DeadlineExceededError):
        return "it did not answer in time"
    lines = [line.strip() for line in str(error.message).splitlines() if line.strip()]
    telling = [line for line in lines if "ollective" in line and "defined at" not in line]
    return (telling or lines or [type(error).__name__])[0].removeprefix("Collective ops is aborted by: ").rstrip(":")
