"""Training with the learner's shards in worker processes of this machine."""

from typing import Any

from metarl.experiment import checks, front_door
from metarl.scaling import cores


def run(
    command: front_door.Command,
    *,
    num_workers: int | None = None,
    worker_timeout: float = 1800.0,
) -> int:
    """Trains as `front_door.run` does, with the learner's tasks spread over processes.

    Args:
        command: what to train.
        num_workers: processes; None: as many as cores.
        worker_timeout: seconds without a sign of life after which a worker that works is replaced.

    Returns:
        The exit code of `loop.train`.

    Raises:
        UserError: a mistake in the configuration, the folder or the flags; nothing on disk was changed.
        WorkerError: a worker was lost again and again.
    """
    num_workers = cores.usable() if num_workers is None else checks.integer("--num_workers", num_workers, 1)
    checks.real("--worker_timeout", worker_timeout, minimum=1.0)

    def spread(learner: Any, config: str) -> Any:
        from metarl.scaling.process_pool import ProcessPool
        from metarl.scaling.sharded_learner import sharded, split_sizes

        learner = sharded(learner, num_workers)
        pool = ProcessPool(config, split_sizes(learner.num_units, num_workers), timeout=worker_timeout)
        learner.use_pool(pool)
        return pool

    return front_door.run(command, spread)
