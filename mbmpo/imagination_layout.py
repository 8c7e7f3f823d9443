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
    """Which rows each model predicts: the meta-batch's rows in E equal contiguous blocks, cut to the shard's tasks.

    Args:
        task_indices: of the shard.
        num_tasks: of the meta-batch, a multiple of E.
        num_models: E.
        rows: R.
    """

    def __init__(self, task_indices: range, num_tasks: int, num_models: int, rows: int):
        model = np.repeat(np.asarray(task_indices) // (num_tasks // num_models), rows)
        counts = np.bincount(model, minlength=num_models)
        self._num_models = num_models
        self._source = self._target = None
        if (counts != counts[0]).any():
            # Shorter blocks are filled up with the first row, and its copies are dropped again.
            begins = np.cumsum(counts) - counts
            place = np.arange(len(model)) - begins[model]
            self._source = np.zeros((num_models, counts.max()), np.int32)
            self._source[model, place] = np.arange(len(model))
            self._target = (model * counts.max() + place).astype(np.int32)

    def split(self, x: tf.Tensor) -> tf.Tensor:
        """Rows [n, k] for the models, [E, B, k]."""
        if self._source is None:
            return tf.reshape(x, [self._num_models, -1, x.shape[-1]])
        return tf.gather(x, self._source)

    def join(self, x: tf.Tensor) -> tf.Tensor:
        """What the models said, [E, B, k], as rows [n, k]."""
        flat = tf.reshape(x, [-1, x.shape[-1]])
        return flat if self._target is None else tf.gather(flat, self._target)
