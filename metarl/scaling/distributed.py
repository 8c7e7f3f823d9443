"""Training on the replicas of `tf.distribute`: over the devices of this machine, or over hosts by TF_CONFIG."""

import contextlib
import logging
import os
import tempfile
from collections.abc import Sequence
from typing import Any

from absl import logging as absl_logging

from metarl.experiment import checks, front_door, runtime
from metarl.experiment.errors import UserError, WorkerError
from metarl.scaling.cluster_config import Cluster, meet, require_cluster

STRATEGIES = ("mirrored", "multi_worker")


def run(
    command: front_door.Command,
    *,
    strategy: str = "mirrored",
    replicas: int | None = None,
    peer_timeout: float = 600.0,
) -> int:
    """Trains as `front_door.run` does, with the learner's tasks split over replicas.

    Args:
        command: what to train; its folder is the chief's only, the other processes write none.
        strategy: one of `STRATEGIES`.
        replicas: "mirrored": GPUs to use, or virtual devices of the CPU where there is no GPU; None: all GPUs.
        peer_timeout: "multi_worker": seconds after which another process counts as lost.

    Returns:
        The exit code of `loop.train`.

    Raises:
        UserError: a mistake in the configuration, the folder, the flags or TF_CONFIG; nothing on disk was changed.
        WorkerError: another process is gone, or a shard there failed.
    """
    checks.choice("--strategy", strategy, STRATEGIES)
    command.require_files()
    if replicas is not None:
        checks.integer("--replicas", replicas, 1)
    checks.real("--peer_timeout", peer_timeout, minimum=1.0)
    cluster = None
    if strategy == "multi_worker":
        if replicas is not None:
            raise UserError("--replicas is for --strategy=mirrored; with multi_worker every host uses all its devices")
        cluster = require_cluster(os.environ)
    # A lost peer is told in one line of ours; what TensorFlow's libraries write about it is not for users.
    runtime.import_tensorflow("3" if cluster else "2")
    logging.getLogger("tensorflow").setLevel(logging.WARNING)
    from metarl.experiment import gin_front_door
    from metarl.scaling.replicas import Replicas

    config = gin_front_door.parse(command.gin_files, command.gin_params, command.seed)
    devices = [] if cluster else local_devices(replicas)
    # Threads can be set only before the first operation, and strategies begin with some.
    gin_front_door.call(gin_front_door.RUNTIME)
    found = Replicas(multi_worker(cluster, peer_timeout) if cluster else mirrored(devices))
    if not found.chief:
        absl_logging.info("replicas %s of %d; the chief writes the run", found.local, found.total)
        absl_logging.set_verbosity(absl_logging.ERROR)
    return _train(config, found, command)


def _train(config: Any, replicas: Any, command: front_door.Command) -> int:
    """Builds the learner and a shard per replica, and trains; the chief in the run directory."""
    import gin

    from metarl.experiment import gin_front_door, loop
    from metarl.experiment.run_directory import RunDirectory, default_path
    from metarl.scaling.replicas import ReplicaPool
    from metarl.scaling.sharded_learner import sharded

    experiment = gin_front_door.build(config)
    operative_config = gin.operative_config_str()
    learner = sharded(experiment.learner, replicas.total)
    with contextlib.ExitStack() as stack:
        root = command.logdir or default_path(config.files, config.macro("SEED"))
        if not replicas.chief:
            root = stack.enter_context(tempfile.TemporaryDirectory())
        directory = RunDirectory(root)
        wanted = (operative_config, config.bindings, experiment.may_change, experiment.iterations)
        directory.check(*wanted)
        directory.acquire()
        stack.callback(directory.release)
        directory.check(*wanted)
        _agree_on_start(directory, replicas)

        def make_shard(first: int, count: int) -> Any:
            return gin_front_door.build(config).learner.make_part(first, count)

        pool = ReplicaPool(replicas, learner.num_units, make_shard)
        stack.callback(pool.close)
        learner.use_pool(pool)
        return loop.train(experiment, directory, operative_config, command.flags)


def _agree_on_start(directory: Any, replicas: Any) -> None:
    """Puts what the chief resumes from, if anything, into the other processes' own folders."""
    if replicas.alone:
        return
    from metarl.experiment import checkpoints

    store = checkpoints.CheckpointStore(directory.path(checkpoints.FOLDER))
    table = directory.path("final.csv")
    mine = None
    if replicas.chief:
        saved = store.restore()
        finished = table.read_text(encoding="utf-8") if table.exists() else None
        mine = None if saved is None else (saved.iteration, saved.arrays, finished)
    start = replicas.from_chief(mine)
    if start is not None and not replicas.chief:
        iteration, arrays, finished = start
        store.save(iteration, arrays)
        if finished is not None:
            directory.write_text("final.csv", finished)


def local_devices(replicas: int | None) -> list[str]:
    """The devices to mirror on; divides the CPU into virtual ones where there is no GPU.

    Raises:
        UserError: there are not so many GPUs, or none and no number was given.
    """
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        if replicas is not None and replicas > len(gpus):
            raise UserError(f"--replicas={replicas}, but this machine has {len(gpus)} GPU(s)")
        return [f"GPU:{number}" for number in range(replicas or len(gpus))]
    if replicas is None:
        raise UserError("--strategy=mirrored finds no GPU; --replicas=<n> runs on n virtual devices of the CPU")
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * replicas)
    return [f"CPU:{number}" for number in range(replicas)]


def mirrored(devices: Sequence[str]) -> Any:
    """A strategy over devices of this process."""
    import tensorflow as tf

    if devices[0].startswith("GPU"):
        return tf.distribute.MirroredStrategy(devices)

    def in_order(parts: Sequence[tf.Tensor]) -> tf.Tensor:  # the default adds them as they come
        return tf.reduce_sum(tf.stack(parts), axis=0)

    return tf.distribute.MirroredStrategy(devices, tf.distribute.ReductionToOneDevice(accumulation_fn=in_order))


def multi_worker(cluster: Cluster, peer_timeout: float) -> Any:
    """A strategy over the processes of TF_CONFIG; waits `peer_timeout` seconds for all of them.

    Raises:
        UserError: they cannot be joined.
        WorkerError: they do not come in time.
    """
    import tensorflow as tf

    experimental = tf.distribute.experimental
    # A ring adds in the same order every time; GPUs have a library of their own.
    kind = experimental.CommunicationImplementation
    implementation = kind.AUTO if tf.config.list_physical_devices("GPU") else kind.RING
    try:
        meet(cluster, peer_timeout)
        return tf.distribute.MultiWorkerMirroredStrategy(
            communication_options=experimental.CommunicationOptions(
                timeout_seconds=peer_timeout, implementation=implementation
            )
        )
    except (
        tf.errors.DeadlineExceededError,
        tf.errors.UnavailableError,
        tf.errors.AbortedError,
        tf.errors.CancelledError,
        tf.errors.InternalError,
    ) as error:
        raise WorkerError("another process of TF_CONFIG was lost while the replicas started") from error
    except (tf.errors.OpError, RuntimeError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(f"the processes of TF_CONFIG cannot be joined: {first}") from error
