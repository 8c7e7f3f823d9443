"""Training with the learner's shards in actors of a Ray cluster."""

import contextlib
from typing import Any

from metarl.experiment import checks, front_door
from metarl.scaling import cores


def run(
    command: front_door.Command,
    *,
    address: str = "local",
    num_workers: int | None = None,
    cpus_per_worker: int | None = None,
    worker_timeout: float = 1800.0,
) -> int:
    """Trains as `front_door.run` does, with the learner's tasks spread over actors.

    Args:
        command: what to train.
        address: "auto" for the running cluster that Ray finds, "local" for a new one on this machine, or host:port.
        num_workers: actors; None: "local": as many as cores; else as many as the cluster's free CPUs allow.
        cpus_per_worker: CPUs, and threads, of each; None: "local": its share of the cores; else one.
        worker_timeout: seconds after which an actor that was asked something is replaced.

    Returns:
        The exit code of `loop.train`.

    Raises:
        UserError: a mistake in the configuration, the folder or the flags, or no such cluster; nothing on disk was
            changed.
        WorkerError: an actor was lost again and again.
    """
    for name, value in (("--num_workers", num_workers), ("--cpus_per_worker", cpus_per_worker)):
        if value is not None:
            checks.integer(name, value, 1)
    checks.real("--worker_timeout", worker_timeout, minimum=1.0)
    local = address == "local"

    def spread(learner: Any, config: str) -> Any:
        from metarl.scaling.ray_cluster import joined
        from metarl.scaling.ray_pool import RayPool
        from metarl.scaling.sharded_learner import sharded, split_sizes

        share = max(1, cores.usable() // (num_workers or cores.usable())) if local else 1
        threads = cpus_per_worker or share
        actors = num_workers or (max(1, cores.usable() // threads) if local else None)
        learner = sharded(learner, actors or 1)
        ray = stack.enter_context(joined(address, threads * actors if local and actors else None))
        if actors is None:
            free = int(ray.available_resources().get("CPU", 0)) // threads
            actors = max(1, min(free, learner.num_units))
            learner = sharded(learner, actors)  # only now it is known how many
        pool = RayPool(ray, config, split_sizes(learner.num_units, actors), timeout=worker_timeout, threads=threads)
        learner.use_pool(pool)
        return pool

    with contextlib.ExitStack() as stack:
        return front_door.run(command, spread)
