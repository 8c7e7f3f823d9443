"""Predictions of an ensemble: pure functions of its effective weights (MB-MPO specification, section 2).

Shapes: `E` ensemble members, `B` rows per member, `N` rows, `O` observation, `A` action.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from mbmpo.dynamics import networks
from mbmpo.dynamics.normalisation import EPSILON, Normalisation

BlockFunction = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
"""Next observations [E, B, O] for observations [E, B, O] and actions [E, B, A]."""


class Effective(NamedTuple):
    """What prediction needs, computed once per fit.

    Attributes:
        layers: effective kernels [E, in, out] and biases [E, out].
        normalisation: float32 statistics.
        output_error: settings of models with added errors, by name, among them the blocks' models ("model", [E] int32);
            empty for honest models.
    """

    layers: list[networks.Layer]
    normalisation: Normalisation
    output_error: dict[str, Any]


def normalised_delta(effective: Effective, observation: tf.Tensor, action: tf.Tensor) -> tf.Tensor:
    """Predicted changes in normalised units, [E, B, O] for [E, B, O] and [E, B, A]."""
    n = effective.normalisation
    x = tf.concat(
        [
            (observation - n.observation_mean) / (n.observation_std + EPSILON),
            (action - n.action_mean) / (n.action_std + EPSILON),
        ],
        axis=-1,
    )
    return networks.predict(effective.layers, x)


def denormalised(effective: Effective, delta: tf.Tensor) -> tf.Tensor:
    """Changes in the units of the observation, any leading axes."""
    n = effective.normalisation
    return delta * (n.delta_std + EPSILON) + n.delta_mean


def all_members(blocks: BlockFunction, num_models: int, observation: tf.Tensor, action: tf.Tensor) -> tf.Tensor:
    """Every member's next observation of every row, [N, O, E] for [N, O] and [N, A]."""
    copies = [tf.repeat(x[tf.newaxis], num_models, axis=0) for x in (observation, action)]
    return tf.transpose(blocks(*copies), [1, 2, 0])


def by_member(
    blocks: BlockFunction, num_models: int, observation: tf.Tensor, action: tf.Tensor, member: tf.Tensor
) -> tf.Tensor:
    """Each row's next observation by its own member, members working on their rows only.

    Rows are grouped by member into blocks of a fixed number, a little more than the mean; a draw so uneven that a block
    overflows costs another round. The result is the same for any `member`.

    Args:
        blocks: predicts blocks.
        num_models: E.
        observation: [N, O], N static.
        action: [N, A].
        member: [N] int32.

    Returns:
        [N, O].
    """
    N = member.shape[0]
    if N is None:
        raise ValueError("predict_random needs a static number of rows")
    capacity = block_capacity(N, num_models)
    order = tf.argsort(member, stable=True)
    chosen = tf.one_hot(member, num_models, dtype=tf.int32)
    counts = tf.reduce_sum(chosen, axis=0)
    begins = tf.cumsum(counts, exclusive=True)
    rank = tf.reduce_sum(tf.cumsum(chosen, axis=0, exclusive=True) * chosen, axis=1)
    rounds = (tf.reduce_max(counts) + capacity - 1) // capacity
    places = tf.range(capacity, dtype=tf.int32)

    def one_round(r: tf.Tensor, result: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        position = begins[:, tf.newaxis] + r * capacity + places
        source = tf.gather(order, tf.minimum(position, N - 1))
        predicted = blocks(tf.gather(observation, source), tf.gather(action, source))
        here = rank // capacity == r
        slot = tf.where(here, member * capacity + rank - r * capacity, 0)
        flat = tf.reshape(predicted, [num_models * capacity, observation.shape[-1]])
        return r + 1, tf.where(here[:, tf.newaxis], tf.gather(flat, slot), result)

    start = (tf.constant(0), tf.zeros_like(observation))
    return tf.while_loop(lambda r, _: r < rounds, one_round, start)[1]


def block_capacity(num_rows: int, num_models: int) -> int:
    """Rows per member of one round: 2.5 standard deviations above the mean of a uniform draw."""
    mean = num_rows / num_models
    return min(num_rows, math.ceil(mean + 2.5 * math.sqrt(mean * (1.0 - 1.0 / num_models))))
