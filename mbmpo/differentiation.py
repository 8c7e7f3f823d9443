"""First and second derivatives of the policy's mean network, written out (MB-MPO specification, section 3).

A meta-gradient needs one Hessian-vector product per inner step. Written out, it reuses the activations of the inner
gradient, it multiplies nothing twice, and every sum has a fixed order (see `metarl.networks.mlp.fan_out`); nested tapes
give none of the three. The R-operator is Pearlmutter's (Neural Computation 6, 1994): the derivative of every quantity
of the forward and backward pass along one direction of the weights.

Shapes: `M` tasks, `S` rows per task, `O` observation, `A` action; U the width of a layer. Weights have a leading M.
"""

from collections.abc import Mapping
from typing import NamedTuple

import tensorflow as tf

Weights = dict[str, tf.Tensor]

_NARROW = 4  # columns of a product that XLA computes much faster where the right operand is not transposed
_MANY_ROWS = 256  # below, it makes no difference


class ForwardPass(NamedTuple):
    """Activations of every layer, the input first, [M, S, U] each, and the linear output [M, S, A]."""

    activations: list[tf.Tensor]
    mean: tf.Tensor


class BackwardPass(NamedTuple):
    """Gradient by the network's weights, [M, ...], and by every layer's pre-activation, [M, S, U] each."""

    gradient: Weights
    deltas: list[tf.Tensor]


class ForwardTangent(NamedTuple):
    """Derivatives of a forward pass along a direction: hidden pre-activations [M, S, U] each, activations, mean."""

    pre_activations: list[tf.Tensor]
    activations: list[tf.Tensor]
    mean: tf.Tensor


def forward(weights: Mapping[str, tf.Tensor], observation: tf.Tensor) -> ForwardPass:
    """The mean network of `mbmpo.policies`, its activations kept.

    Args:
        weights: "mlp<i>.kernel" [M, in, out] and "mlp<i>.bias" [M, out]; other entries are ignored.
        observation: [M, S, O].
    """
    activations = [observation]
    depth = num_layers(weights)
    for i in range(depth):
        z = _affine(activations[-1], weights[f"mlp{i}.kernel"], weights[f"mlp{i}.bias"])
        if i == depth - 1:
            return ForwardPass(activations, z)
        activations.append(tf.tanh(z))
    raise ValueError("the policy has no layers")


def backward(weights: Mapping[str, tf.Tensor], passed: ForwardPass, mean_gradient: tf.Tensor) -> BackwardPass:
    """The gradient by the weights from the gradient by the mean, [M, S, A]."""
    depth = num_layers(weights)
    gradient: Weights = {}
    deltas = [mean_gradient]
    for i in reversed(range(depth)):
        delta, h = deltas[0], passed.activations[i]
        gradient[f"mlp{i}.kernel"] = _kernel_gradient(h, delta)
        gradient[f"mlp{i}.bias"] = tf.reduce_sum(delta, axis=1)
        if i:
            deltas.insert(0, _through_tanh(h, _backwards(delta, weights[f"mlp{i}.kernel"])))
    return BackwardPass(gradient, deltas)


def forward_tangent(
    weights: Mapping[str, tf.Tensor], passed: ForwardPass, direction: Mapping[str, tf.Tensor]
) -> ForwardTangent:
    """Derivatives of the forward pass where the weights move along `direction`, [M, ...]."""
    depth = num_layers(weights)
    pre_activations: list[tf.Tensor] = []
    activations: list[tf.Tensor] = []
    for i in range(depth):
        kernel, bias = direction[f"mlp{i}.kernel"], direction[f"mlp{i}.bias"]
        z = _affine(passed.activations[i], kernel, bias)
        if i:
            z += tf.matmul(activations[-1], weights[f"mlp{i}.kernel"])
        if i < depth - 1:
            pre_activations.append(z)
            activations.append(_through_tanh(passed.activations[i + 1], z))
    return ForwardTangent(pre_activations, activations, z)


def backward_tangent(
    weights: Mapping[str, tf.Tensor],
    direction: Mapping[str, tf.Tensor],
    passed: ForwardPass,
    reverse: BackwardPass,
    tangent: ForwardTangent,
    mean_gradient_tangent: tf.Tensor,
) -> Weights:
    """Derivative of the gradient along `direction`: the network's part of a Hessian-vector product.

    Args:
        weights: where the passes were made.
        direction: [M, ...].
        passed: `forward` at the weights.
        reverse: `backward` at the weights.
        tangent: `forward_tangent` along the direction.
        mean_gradient_tangent: [M, S, A], derivative of the gradient by the mean. An ordinary gradient by the mean that
            is added to it adds that gradient by the weights to the result.

    Returns:
        By name, [M, ...].
    """
    product: Weights = {}
    moved = mean_gradient_tangent
    for i in reversed(range(num_layers(weights))):
        h, delta = passed.activations[i], reverse.deltas[i]
        kernel = _kernel_gradient(h, moved)
        if i:
            kernel += _kernel_gradient(tangent.activations[i - 1], delta)
        product[f"mlp{i}.kernel"] = kernel
        product[f"mlp{i}.bias"] = tf.reduce_sum(moved, axis=1)
        if i:
            back = _backwards(moved, weights[f"mlp{i}.kernel"])
            back += _backwards(delta, direction[f"mlp{i}.kernel"])
            # delta_{i-1} = dL/dh (1 - h^2), and h moves by (1 - h^2) times the pre-activation's derivative.
            bent = reverse.deltas[i - 1] * h * tangent.pre_activations[i - 1]
            moved = _through_tanh(h, back) - 2.0 * bent
    return product


def num_layers(weights: Mapping[str, tf.Tensor]) -> int:
    """Number of the mean network's layers, the linear one included."""
    return sum(name.startswith("mlp") and name.endswith(".kernel") for name in weights)


def _affine(x: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """The sum of x W and bias, [M, S, U]."""
    if x.shape[0] == 1:
        # Written so, TensorFlow joins product, bias and the tanh behind them into one operation.
        flat = tf.nn.bias_add(tf.matmul(x[0], kernel[0]), bias[0])
        return flat[tf.newaxis]
    return tf.matmul(x, kernel) + bias[:, tf.newaxis]


def _kernel_gradient(h: tf.Tensor, delta: tf.Tensor) -> tf.Tensor:
    """The product h^T delta of every task, [M, in, out] from [M, S, in] and [M, S, out]."""
    if delta.shape[-1] >= h.shape[-1] or delta.shape[1] < _MANY_ROWS:
        return tf.matmul(h, delta, transpose_a=True)
    # The left operand is repacked element by element, which takes longer than a product with a narrow right one.
    return _transposed(tf.matmul(delta, h, transpose_a=True))


def _backwards(delta: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """The product delta kernel^T of every task, [M, S, in] from [M, S, out] and [M, in, out]."""
    if kernel.shape[-1] > _NARROW or delta.shape[1] < _MANY_ROWS:
        return tf.matmul(delta, kernel, transpose_b=True)
    return tf.matmul(delta, _transposed(kernel))


def _transposed(x: tf.Tensor) -> tf.Tensor:
    """[M, b, a] from a small [M, a, b], in a form that XLA does not draw into the product that it would slow down."""
    shorter = 1 if x.shape[1] < x.shape[2] else 2
    return tf.stack(tf.unstack(x, axis=shorter), axis=3 - shorter)


def _through_tanh(activation: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor:
    """The gradient before a tanh from the one behind it, in one kernel: gradient * (1 - activation^2)."""
    return tf.raw_ops.TanhGrad(y=activation, dy=gradient)
