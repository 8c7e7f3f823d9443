"""The network of one ensemble member, and its loss with gradients (MB-MPO specification, section 2).

Weights are named "layer<i>.v" [in, out], "layer<i>.g" [out] (with weight normalisation) and "layer<i>.bias" [out]. With
weight normalisation the kernel is W = V g / ‖V‖, the norm of every column of V; without it, W = V.

Shapes: `E` ensemble members, `B` rows, leading E only where said.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import tensorflow as tf

from metarl.networks.initializers import glorot_uniform_full
from metarl.seeding import named_seed

Weights = dict[str, tf.Tensor]


class Layer(NamedTuple):
    """Effective weights of a layer: kernel [in, out] and bias [out], or both with a leading E."""

    kernel: tf.Tensor
    bias: tf.Tensor


def initial_weights(seed: int, name: str, widths: Sequence[int], weight_normalization: bool) -> Weights:
    """Weights of one member before training: Xavier-uniform V, zero biases, and g = 1 (not the norm of V).

    Args:
        seed: of the experiment.
        name: of the member, for its own streams of random numbers.
        widths: of the input, the hidden layers and the output.
        weight_normalization: whether there is a g.
    """
    weights: Weights = {}
    for i, shape in enumerate(itertools.pairwise(widths)):
        kernel = glorot_uniform_full(named_seed(seed, f"{name}/layer{i}.v"))(shape)
        weights[f"layer{i}.v"] = tf.convert_to_tensor(kernel)
        if weight_normalization:
            weights[f"layer{i}.g"] = tf.ones([shape[1]])
        weights[f"layer{i}.bias"] = tf.zeros([shape[1]])
    return weights


def weight_shapes(widths: Sequence[int], weight_normalization: bool) -> dict[str, list[int]]:
    """Shapes of a member's weights by name, in the order of `initial_weights`."""
    shapes: dict[str, list[int]] = {}
    for i, (rows, columns) in enumerate(itertools.pairwise(widths)):
        shapes[f"layer{i}.v"] = [rows, columns]
        if weight_normalization:
            shapes[f"layer{i}.g"] = [columns]
        shapes[f"layer{i}.bias"] = [columns]
    return shapes


def depth_of(weights: Mapping[str, tf.Tensor]) -> int:
    """Number of layers."""
    return sum(name.endswith(".v") for name in weights)


def column_norms(v: tf.Tensor) -> tf.Tensor:
    """‖V‖ of every column, [..., out] for [..., in, out]."""
    return tf.sqrt(tf.reduce_sum(tf.square(v), axis=-2))


def effective_layers(weights: Mapping[str, tf.Tensor]) -> list[Layer]:
    """Kernels and biases that the weights stand for, with or without a leading E."""
    layers = []
    for i in range(depth_of(weights)):
        kernel = weights[f"layer{i}.v"]
        if f"layer{i}.g" in weights:
            kernel *= (weights[f"layer{i}.g"] / column_norms(kernel))[..., tf.newaxis, :]
        layers.append(Layer(kernel, weights[f"layer{i}.bias"]))
    return layers


def activations(layers: Sequence[Layer], x: tf.Tensor) -> list[tf.Tensor]:
    """The input and the output of every layer: ReLU in the hidden ones, linear at the end.

    Args:
        layers: of one member, or of all with a leading E.
        x: [B, in], or [E, B, in].

    Returns:
        As many as layers, plus one; the last is the prediction [B, out] or [E, B, out].
    """
    values = [x]
    for i, layer in enumerate(layers):
        product = tf.matmul(values[-1], layer.kernel)
        if layer.bias.shape.rank == 1:
            product = tf.nn.bias_add(product, layer.bias)
        else:
            product += layer.bias[:, tf.newaxis]
        values.append(tf.nn.relu(product) if i < len(layers) - 1 else product)
    return values


def predict(layers: Sequence[Layer], x: tf.Tensor) -> tf.Tensor:
    """The prediction; see `activations`."""
    return activations(layers, x)[-1]


def loss_and_gradients(weights: Weights, x: tf.Tensor, y: tf.Tensor) -> tuple[tf.Tensor, Weights]:
    """Mean squared error over rows and dimensions of one member, and its gradients, written out.

    Automatic differentiation would add the three uses of V in an order that depends on timing, and keep more.

    Args:
        weights: of one member.
        x: [B, in].
        y: [B, out].

    Returns:
        The loss, and gradients under the names of the weights.
    """
    layers = effective_layers(weights)
    values = activations(layers, x)
    error = values[-1] - y
    upstream = error * (2.0 / tf.cast(tf.size(error), error.dtype))
    gradients: Weights = {}
    for i in reversed(range(len(layers))):
        kernel_gradient = tf.matmul(values[i], upstream, transpose_a=True)
        gradients[f"layer{i}.bias"] = tf.reduce_sum(upstream, axis=0)
        if f"layer{i}.g" in weights:
            v, g = weights[f"layer{i}.v"], weights[f"layer{i}.g"]
            norm = column_norms(v)
            # dg = sum_in(dW V) / ‖V‖ and dV = (dW - V dg / ‖V‖) g / ‖V‖, per column.
            g_gradient = tf.reduce_sum(kernel_gradient * v, axis=0) / norm
            gradients[f"layer{i}.g"] = g_gradient
            kernel_gradient = kernel_gradient * (g / norm) - v * (g * g_gradient / tf.square(norm))
        gradients[f"layer{i}.v"] = kernel_gradient
        if i > 0:
            back = tf.matmul(upstream, layers[i].kernel, transpose_b=True)
            upstream = tf.raw_ops.ReluGrad(gradients=back, features=values[i])
    return tf.reduce_mean(tf.square(error)), gradients
