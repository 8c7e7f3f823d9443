"""Where imagined rows start: resets of the real family and observations of the buffer (specification, section 5.2).

Shapes: `M` tasks (of the shard), `R` rows per task, `P` resets per row, `b` blocks of them, `O` observation, `N` buffer
rows.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from mbmpo.transitions import Transitions
from metarl.seeding import keyed_generator
from metarl.simulation.imaginable import ImaginableFamily

ENVIRONMENT_PROBABILITY = 0.1
"""How often a finished row starts from a reset of the family although there is a buffer."""
RECENT_ROWS = 10_000
"""Rows that finish are reset among so many of the newest buffered observations."""


class RecentObservations(NamedTuple):
    """The newest rows of the buffer, of constant shape.

    Attributes:
        observation: [10,000, O] float32, zero beyond `num_rows`.
        time: [10,000] int32, index of each in the path it was seen in.
        num_rows: int32, rows that hold something; 0: every reset is the family's own.
    """

    observation: np.ndarray
    time: np.ndarray
    num_rows: np.ndarray


def recent_observations(buffer: Transitions | None, observation_dim: int) -> RecentObservations:
    """The last min(10,000, N) observations of the buffer; none for None."""
    observation = np.zeros((RECENT_ROWS, observation_dim), np.float32)
    time = np.zeros(RECENT_ROWS, np.int32)
    count = 0 if buffer is None else min(RECENT_ROWS, len(buffer.observation))
    if buffer is not None and count:
        observation[:count] = buffer.observation[-count:]
        time[:count] = buffer.time[-count:]
    return RecentObservations(observation, time, np.asarray(count, np.int32))


def family_resets(
    family: ImaginableFamily,
    rows: int,
    counts: Sequence[int],
    *,
    seed: int,
    iteration: int,
    phase: str,
    task_indices: Sequence[int],
) -> np.ndarray:
    """Observations after resets of the real family, [M, R, P, O] float32.

    Every task and block has its own random numbers: how many blocks there are changes nothing in the first ones.

    Args:
        family: to be reset.
        rows: R.
        counts: [b], resets per row of each block; P is their sum.
        seed: of the experiment.
        iteration: 0-based.
        phase: of the iteration.
        task_indices: [M], index of each task in the whole meta-batch.
    """
    if family.reset_dim == 0:
        shape = (len(task_indices), rows, sum(counts), family.observation_dim)
        return np.broadcast_to(np.asarray(family.initial_observations(np.zeros((1, 0))), np.float32), shape)
    blocks = []
    for block, count in enumerate(counts):
        name = f"{phase}/imagination/reset" + (f"/{block}" if block else "")
        generators = (keyed_generator(seed, iteration, name, int(i)) for i in task_indices)
        numbers = np.concatenate([family.draw_reset(generator, rows * count) for generator in generators])
        observations = np.asarray(family.initial_observations(numbers), np.float32)
        blocks.append(observations.reshape(len(task_indices), rows, count, family.observation_dim))
    return np.concatenate(blocks, axis=2)


def buffer_starts(
    buffer: Transitions, rows: int, *, seed: int, iteration: int, phase: str, task_indices: Sequence[int]
) -> np.ndarray:
    """Observations drawn uniformly from the whole buffer, [M, R, O] float32; arguments as in `family_resets`."""
    drawn = [
        keyed_generator(seed, iteration, f"{phase}/imagination/start", int(i)).integers(
            len(buffer.observation), size=rows
        )
        for i in task_indices
    ]
    return buffer.observation[np.stack(drawn)]


def noise_seeds(seed: int, iteration: int, phase: str, task_indices: Sequence[int], streams: int) -> np.ndarray:
    """Seeds of TensorFlow's stateless random numbers, [M, streams, 2] int32, keyed per task."""
    limit = np.iinfo(np.int32).max
    return np.stack(
        [
            keyed_generator(seed, iteration, f"{phase}/imagination", int(i)).integers(limit, size=(streams, 2))
            for i in task_indices
        ]
    ).astype(np.int32)


def draw_recent(
    recent: RecentObservations, uniform: tf.Tensor, fresh: tf.Tensor, ends: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Observations [M, R, O] and time indices [M, R] to continue at, and which rows use up a reset of the family."""
    from_family = (uniform[..., 0] < ENVIRONMENT_PROBABILITY) | tf.equal(recent.num_rows, 0)
    index = tf.cast(uniform[..., 1] * tf.cast(recent.num_rows, tf.float32), tf.int32)
    # In float32 the product can round up to the number of rows itself.
    index = tf.maximum(tf.minimum(index, recent.num_rows - 1), 0)
    observation = tf.where(from_family[..., tf.newaxis], fresh, tf.gather(recent.observation, index))
    return observation, tf.where(from_family, 0, tf.gather(recent.time, index)), from_family & ends
