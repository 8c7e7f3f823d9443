"""Multi-layer perceptron: one pure function for shared and for per-task weights, and the layer that owns its shapes.

Shapes: `M` tasks, `S` rows per task, `C` context numbers per task (a task embedding or a latent vector).
"""

import itertools
from collections.abc import Mapping, Sequence

import keras
import tensorflow as tf

from metarl.networks.initializers import normc
from metarl.seeding import named_seed


def dense(kernel: tf.Tensor, bias: tf.Tensor | None, x: tf.Tensor) -> tf.Tensor:
    """Affine map x W + b with one set of weights, or with one set per task.

    Args:
        kernel: [in, out] shared, or [M, in, out] per task.
        bias: [out] or [M, out], as the kernel; None for none.
        x: [M, S, in], M or S static.

    Returns:
        [M, S, out].
    """
    if kernel.shape.rank == 3:
        product = tf.matmul(x, kernel)
        return product if bias is None else product + bias[:, tf.newaxis, :]
    # One large product instead of M small ones: the shared kernel is broadcast by folding tasks into rows.
    num_tasks, rows, width = x.shape
    flat = tf.matmul(tf.reshape(x, [-1, width]), kernel)
    leading = [-1 if size is None else size for size in (num_tasks, rows)]
    product = tf.reshape(flat, [*leading, kernel.shape[-1]])
    return product if bias is None else product + bias


def mlp(
    weights: Mapping[str, tf.Tensor], x: tf.Tensor, context: tf.Tensor | None = None, name: str = "mlp"
) -> tf.Tensor:
    """Hidden layers with tanh, linear output (TESP specification, section 2.1).

    Args:
        weights: `<name><i>.kernel` and `<name><i>.bias` for i = 0.. of each layer, shared or per task; other
            entries are ignored.
        x: [M, S, in].
        context: [M, C], numbers concatenated behind every row of x of the task; None for none. The first kernel
            then has in + C rows. The concatenation is not formed: the context's part of the first layer is
            computed once per task.
        name: prefix of the layers' names.

    Returns:
        [M, S, out].
    """
    depth = 0
    while f"{name}{depth}.kernel" in weights:
        depth += 1
    for i in range(depth):
        kernel, bias = weights[f"{name}{i}.kernel"], weights[f"{name}{i}.bias"]
        if i == 0 and context is not None:
            split = x.shape[-1]
            from_context = dense(kernel[..., split:, :], bias, context[:, tf.newaxis, :])
            x = dense(kernel[..., :split, :], None, x) + from_context
        else:
            x = dense(kernel, bias, x)
        if i < depth - 1:
            x = tf.tanh(x)
    return x


def mlp_task_by_task(
    weights: Mapping[str, tf.Tensor], x: tf.Tensor, context: tf.Tensor | None = None, name: str = "mlp"
) -> tf.Tensor:
    """The same function as `mlp`, built as one subgraph per task: for large S and its gradients.

    A layer's activations of all tasks together (100 MB for 20 x 5,000 steps and 256 units) leave the processor's cache
    and are given back to the operating system after every use; those of one task do neither.

    Args:
        weights: as in `mlp`.
        x: [M, S, in], M static.
        context: [M, C] or None.
        name: prefix of the layers' names.

    Returns:
        [M, S, out].
    """
    num_tasks = x.shape[0]
    rank = {"kernel": 2, "bias": 1}
    own: dict[str, list[tf.Tensor]] = {}
    for key, value in weights.items():
        if key.startswith(name):
            shared = value.shape.rank == rank[key.rpartition(".")[2]]
            own[key] = fan_out(value, num_tasks) if shared else tf.unstack(value)
    rows = tf.unstack(x)
    contexts = [None] * num_tasks if context is None else tf.unstack(context)
    outputs = [
        _mlp_of_one_task({key: values[task] for key, values in own.items()}, rows[task], contexts[task], name)
        for task in range(num_tasks)
    ]
    return tf.stack(outputs)


def _mlp_of_one_task(weights: Mapping[str, tf.Tensor], x: tf.Tensor, context: tf.Tensor | None, name: str) -> tf.Tensor:
    """`mlp` for one task: [S, out] from [S, in] and [C]."""
    depth = sum(key.endswith(".kernel") for key in weights)
    for i in range(depth):
        kernel, bias = weights[f"{name}{i}.kernel"], weights[f"{name}{i}.bias"]
        if i == 0 and context is not None:
            kernel, of_context = tf.split(kernel, [x.shape[-1], context.shape[-1]])
            bias += tf.linalg.matvec(of_context, context, transpose_a=True)
        # Written so, TensorFlow joins product, bias and the tanh behind them into one operation.
        x = tf.nn.bias_add(tf.matmul(x, kernel), bias)
        if i < depth - 1:
            x = tf.tanh(x)
    return x


def fan_out(x: tf.Tensor, count: int) -> list[tf.Tensor]:
    """`count` copies of a tensor that is used so often, for gradients whose bits do not depend on timing.

    TensorFlow adds the gradients of a tensor's uses with one AddN. That operation accumulates into whichever input's
    buffer happens to be free, so that with three inputs or more the order of the sum, and its last bit, depends on
    which thread was faster. The gradient of these copies is a sum along an axis, whose order is fixed.
    """
    return tf.unstack(tf.broadcast_to(x, [count, *x.shape]), num=count)


class MLP(keras.layers.Layer):
    """Owner of an MLP's names, shapes and initialisers (normc kernels, zero biases).

    Args:
        input_dim: width of x plus context.
        hidden_sizes: widths of the tanh layers.
        output_dim: width of the linear output.
        output_scale: column norm of the output kernel; hidden kernels have column norm 1.
        seed: of the initialisers.
        name: prefix of the layers' names.
    """

    def __init__(
        self,
        input_dim: int,
        hidden_sizes: Sequence[int],
        output_dim: int,
        *,
        output_scale: float = 0.01,
        seed: int = 0,
        name: str = "mlp",
    ):
        super().__init__(name=name)
        widths = [input_dim, *hidden_sizes, output_dim]
        self._named = {}
        for i, (rows, columns) in enumerate(itertools.pairwise(widths)):
            scale = output_scale if i == len(widths) - 2 else 1.0
            self._named[f"{name}{i}.kernel"] = self.add_weight(
                name=f"{name}{i}_kernel",
                shape=(rows, columns),
                initializer=normc(scale, named_seed(seed, f"{name}{i}.kernel")),
            )
            self._named[f"{name}{i}.bias"] = self.add_weight(
                name=f"{name}{i}_bias", shape=(columns,), initializer="zeros"
            )
        self.built = True

    def initial_weights(self) -> dict[str, tf.Tensor]:
        """Returns the initial weights by name, as tensors."""
        return {key: tf.convert_to_tensor(variable.value) for key, variable in self._named.items()}

    def call(self, x: tf.Tensor, context: tf.Tensor | None = None) -> tf.Tensor:
        """Applies the layer's own weights; see `mlp`."""
        return mlp(self.initial_weights(), x, context, self.name)
