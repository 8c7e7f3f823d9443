"""Random numbers keyed by what they are for, never by the shape of the batch they are drawn in.

Every draw of an experiment belongs to a (seed, iteration, phase, task index). Splitting the tasks over
workers, padding a batch or resuming from a checkpoint therefore cannot change a single number.
"""

import zlib

import numpy as np


def keyed_generator(seed: int, iteration: int, phase: str, task_index: int = 0) -> np.random.Generator:
    """Returns the generator that belongs to one key.

    Args:
        seed: the experiment's seed, at least 0.
        iteration: 0-based meta-update.
        phase: what the numbers are for, for example "train/round_2"; any string.
        task_index: the task's index in the whole meta-batch or goal set, not in the shard.

    Returns:
        A NumPy generator; the same key gives the same stream, different keys give independent ones.
    """
    return np.random.default_rng(np.random.SeedSequence([seed, iteration, zlib.crc32(phase.encode()), task_index]))


def named_seed(seed: int, name: str) -> int:
    """Returns the seed of the initialiser of the parameter `name`; each parameter has an independent stream."""
    return int(np.random.SeedSequence([seed, zlib.crc32(name.encode())]).generate_state(1)[0])
