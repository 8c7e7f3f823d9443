"""How imagined rows are arranged: for the models, and in the resulting steps.

Shapes: `T` ticks, `M` tasks (of the shard), `R` rows per task, `n` = M R, `E` models, `B` rows per model.
"""

import numpy as np
import tensorflow as tf


def row_after_row(x: tf.Tensor) -> tf.Tensor:
    """Puts the ticks of a row next to each other: [T, M, R, ...] -> [M, R T, ...]."""
    T, M, R, *width = x.shape
    return tf.reshape(tf.transpose(x, [1, 2, 0, *range(3, x.shape.rank)]), [M, R * T, *width])


class Blocks:
    """Which model predicts which rows: the meta-batch's rows in E equal contiguous blocks, cut to the shard's tasks.

    A shard whose tasks do not share the models equally has more and smaller blocks, several of which a model predicts.

    Args:
        task_indices: of the shard.
        num_tasks: of the meta-batch, a multiple of E.
        num_models: E.

    Attributes:
        models: of every block; None for all E in order.
    """

    def __init__(self, task_indices: range, num_tasks: int, num_models: int):
        model = np.asarray(task_indices) // (num_tasks // num_models)
        counts = np.bincount(model, minlength=num_models)
        size = int(np.gcd.reduce(counts))
        self.models: np.ndarray | None = None
        if (counts != size).any():
            self.models = np.repeat(np.arange(num_models), counts // size)
        self._count = len(model) // size

    def split(self, x: tf.Tensor) -> tf.Tensor:
        """Rows [n, k] by block, [E, B, k] or with another number of blocks."""
        return tf.reshape(x, [self._count, -1, x.shape[-1]])

    def join(self, x: tf.Tensor) -> tf.Tensor:
        """What the blocks' models said, [E, B, k], as rows [n, k]."""
        return tf.reshape(x, [-1, x.shape[-1]])
