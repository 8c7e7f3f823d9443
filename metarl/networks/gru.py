"""The task encoder: a GRU with the conventions of TensorFlow 1, applied to whole episodes (TESP specification, 2.2).

Shapes: `M` tasks, `E` episodes per task, `H` steps (time), `F` features per step, `U` units, `D` embedding.

Per step, with input x, previous state s, weights ordered [z | r | candidate] and hs(v) = clip(0.2 v + 0.5, 0, 1):

    z = hs(x Wz + s Uz + bz)
    r = hs(x Wr + s Ur + br)
    c = tanh(x Wc + (r * s) Uc + bc)
    s' = z * s + (1 - z) * c

A finished episode copies its state through. That needs no mask inside the loop: where an episode is over, the update
gate's input is replaced by a large number, hs saturates at exactly 1, so s' = s exactly, and every derivative of that
step is exactly 0.
"""

import zlib
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from metarl.networks.initializers import glorot_uniform_full, normc, orthogonal_full

# Far beyond where hard_sigmoid saturates, small enough that adding the recurrent term cannot undo it.
_SATURATED = 1e6


def hard_sigmoid(x: tf.Tensor) -> tf.Tensor:
    """hs(x) = clip(0.2 x + 0.5, 0, 1), the recurrent activation of Keras 2 (Keras 3's is another function).

    The derivative is 0.2 inside and on the boundary, 0 outside, as of TensorFlow's clip.
    """
    return tf.clip_by_value(0.2 * x + 0.5, 0.0, 1.0)


def gru_step(recurrent_kernel: tf.Tensor, projected: tf.Tensor, state: tf.Tensor) -> tf.Tensor:
    """One step of the recurrence from the projected input.

    Args:
        recurrent_kernel: [M, U, 3U].
        projected: [M, E, 3U], x W + b.
        state: [M, E, U].

    Returns:
        [M, E, U], the next state.
    """
    units = state.shape[-1]
    gates = hard_sigmoid(projected[..., : 2 * units] + tf.matmul(state, recurrent_kernel[..., : 2 * units]))
    z, r = gates[..., :units], gates[..., units:]
    c = tf.tanh(projected[..., 2 * units :] + tf.matmul(r * state, recurrent_kernel[..., 2 * units :]))
    return z * state + (1.0 - z) * c


def _project(kernel: tf.Tensor, bias: tf.Tensor, inputs: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
    """Returns x W + b for all steps, [H, M, E, 3U], with the update gate saturated after the end of each episode."""
    tasks, episodes, horizon, features = inputs.shape
    units = kernel.shape[-1] // 3
    flat = tf.reshape(tf.transpose(inputs, (0, 2, 1, 3)), (tasks, horizon * episodes, features))
    projected = tf.matmul(flat, kernel) + bias[:, tf.newaxis]
    projected = tf.transpose(tf.reshape(projected, (tasks, horizon, episodes, 3 * units)), (1, 0, 2, 3))
    over = tf.range(horizon)[:, tf.newaxis, tf.newaxis] >= lengths
    z = tf.where(over[..., tf.newaxis], tf.cast(_SATURATED, projected.dtype), projected[..., :units])
    return tf.concat([z, projected[..., units:]], axis=-1)


def _final_state_plain(
    kernel: tf.Tensor, recurrent_kernel: tf.Tensor, bias: tf.Tensor, inputs: tf.Tensor, lengths: tf.Tensor
) -> tf.Tensor:
    projected = _project(kernel, bias, inputs, lengths)
    horizon, tasks, episodes, _ = projected.shape
    state = tf.zeros((tasks, episodes, recurrent_kernel.shape[-2]), projected.dtype)
    _, state = tf.while_loop(
        lambda t, state: t < horizon,
        lambda t, state: (t + 1, gru_step(recurrent_kernel, projected[t], state)),
        (0, state),
        maximum_iterations=horizon,
    )
    return state


@tf.custom_gradient
def _final_state_fast(
    kernel: tf.Tensor, recurrent_kernel: tf.Tensor, bias: tf.Tensor, inputs: tf.Tensor, lengths: tf.Tensor
) -> Any:
    projected = _project(kernel, bias, inputs, lengths)
    horizon, tasks, episodes, _ = projected.shape
    units = recurrent_kernel.shape[-2]
    shape = (tasks, episodes, units)
    recurrent_gates, recurrent_candidate = recurrent_kernel[..., : 2 * units], recurrent_kernel[..., 2 * units :]

    def new_array(width: int) -> tf.TensorArray:
        return tf.TensorArray(projected.dtype, horizon, element_shape=(tasks, episodes, width))

    def forward(t: Any, state: Any, states: Any, gates_array: Any, candidates: Any) -> Any:
        x = projected[t]
        gates = hard_sigmoid(x[..., : 2 * units] + tf.matmul(state, recurrent_gates))
        z, r = gates[..., :units], gates[..., units:]
        c = tf.tanh(x[..., 2 * units :] + tf.matmul(r * state, recurrent_candidate))
        new_state = c + z * (state - c)
        return t + 1, new_state, states.write(t, state), gates_array.write(t, gates), candidates.write(t, c)

    _, final, states, gates, candidates = tf.while_loop(
        lambda t, *_: t < horizon,
        forward,
        (0, tf.zeros(shape, projected.dtype), new_array(units), new_array(2 * units), new_array(units)),
    )
    states, gates, candidates = states.stack(), gates.stack(), candidates.stack()

    def gradient(d_final: tf.Tensor) -> Any:
        def backward(t: Any, d_state: Any, d_array: Any) -> Any:
            state, c = states[t], candidates[t]
            z, r = gates[t][..., :units], gates[t][..., units:]
            d_c = d_state * (1.0 - z) * (1.0 - c * c)
            d_reset_state = tf.matmul(d_c, recurrent_candidate, transpose_b=True)
            d_gates = tf.concat([d_state * (state - c), d_reset_state * state], axis=-1)
            d_gates = tf.where((gates[t] > 0.0) & (gates[t] < 1.0), 0.2 * d_gates, 0.0)
            d_previous = d_state * z + d_reset_state * r + tf.matmul(d_gates, recurrent_gates, transpose_b=True)
            return t - 1, d_previous, d_array.write(t, tf.concat([d_gates, d_c], axis=-1))

        _, _, d_array = tf.while_loop(lambda t, *_: t >= 0, backward, (horizon - 1, d_final, new_array(3 * units)))

        def per_task(x: tf.Tensor) -> tf.Tensor:
            return tf.reshape(tf.transpose(x, (1, 0, 2, 3)), (tasks, horizon * episodes, x.shape[-1]))

        d_projected = per_task(d_array.stack())
        flat_inputs = tf.reshape(tf.transpose(inputs, (0, 2, 1, 3)), (tasks, horizon * episodes, inputs.shape[-1]))
        d_kernel = tf.matmul(flat_inputs, d_projected, transpose_a=True)
        d_recurrent = tf.concat(
            [
                tf.matmul(per_task(states), d_projected[..., : 2 * units], transpose_a=True),
                tf.matmul(per_task(gates[..., units:] * states), d_projected[..., 2 * units :], transpose_a=True),
            ],
            axis=-1,
        )
        return d_kernel, d_recurrent, tf.reduce_sum(d_projected, axis=1), None, None

    return final, gradient


def gru_final_state(
    weights: Mapping[str, Any], inputs: tf.Tensor, lengths: tf.Tensor, differentiable: str = "fast"
) -> tf.Tensor:
    """Final GRU state of every episode, from a zero initial state (TESP specification, section 2.2).

    Args:
        weights: `kernel` [F, 3U] or [M, F, 3U], `recurrent_kernel` [U, 3U] or [M, U, 3U], `bias` [3U] or [M, 3U]; all
            shared by the tasks, or all per task.
        inputs: [M, E, H, F]; what stands after an episode's end is not looked at, but must be finite.
        lengths: [M, E] int32, 0 to H; an episode of length 0 ends in the zero state.
        differentiable: "fast", first derivatives with respect to the weights only (inputs are data and get none), or
            "plain", automatic differentiation of any order.

    Returns:
        [M, E, U].

    Raises:
        ValueError: unknown `differentiable`, or shapes that do not fit.
    """
    cores = {"fast": _final_state_fast, "plain": _final_state_plain}
    if differentiable not in cores:
        raise ValueError(f"differentiable must be one of {sorted(cores)}, not {differentiable!r}")
    kernel, recurrent, bias = (tf.convert_to_tensor(weights[k]) for k in ("kernel", "recurrent_kernel", "bias"))
    inputs = tf.convert_to_tensor(inputs, kernel.dtype)
    lengths = tf.cast(lengths, tf.int32)
    tasks, episodes, horizon, features = inputs.shape
    units = recurrent.shape[-2]
    if kernel.shape.rank == 2:
        # Shared weights: all episodes of all tasks are the rows of one larger product.
        kernel, recurrent, bias = kernel[tf.newaxis], recurrent[tf.newaxis], bias[tf.newaxis]
        inputs = tf.reshape(inputs, (1, tasks * episodes, horizon, features))
        lengths = tf.reshape(lengths, (1, tasks * episodes))
    final = cores[differentiable](kernel, recurrent, bias, inputs, lengths)
    return tf.reshape(final, (tasks, episodes, units))


def encode(
    weights: Mapping[str, Any], inputs: tf.Tensor, lengths: tf.Tensor, differentiable: str = "fast"
) -> tf.Tensor:
    """Task embedding h: mean over a task's episodes of the projected final GRU states (TESP specification, 2.2).

    Args:
        weights: `gru.kernel`, `gru.recurrent_kernel`, `gru.bias` as in `gru_final_state`, `proj.kernel` [U, D] or
            [M, U, D] and `proj.bias` [D] or [M, D]; other entries are ignored.
        inputs: [M, E, H, F], per step the observation, the recorded logits and the reward, zero after the end.
        lengths: [M, E] int32, 0 where the buffer holds no episode; the mean is over the others.
        differentiable: as in `gru_final_state`.

    Returns:
        [M, D]. A task without an episode gets exactly 0, not the projection's bias, and zero gradients.
    """
    gru_weights = {name: weights[f"gru.{name}"] for name in ("kernel", "recurrent_kernel", "bias")}
    final = gru_final_state(gru_weights, inputs, lengths, differentiable)
    present = tf.cast(tf.convert_to_tensor(lengths) > 0, final.dtype)[..., tf.newaxis]
    count = tf.reduce_sum(present, axis=1)
    # The projection is linear: projecting the mean state is the mean of the projected states.
    mean_state = tf.reduce_sum(final * present, axis=1) / tf.maximum(count, 1.0)
    kernel, bias = tf.convert_to_tensor(weights["proj.kernel"]), tf.convert_to_tensor(weights["proj.bias"])
    if kernel.shape.rank == 3:
        projected = tf.squeeze(tf.matmul(mean_state[:, tf.newaxis], kernel), axis=1)
    else:
        projected = tf.matmul(mean_state, kernel)
    return tf.where(count > 0.0, projected + bias, 0.0)


class GRUEncoder(keras.layers.Layer):
    """Owner of the task encoder's names, shapes and initialisers (TESP specification, section 2.2).

    Args:
        feature_dim: F, numbers per step.
        units: U of the GRU.
        embedding_dim: D.
        seed: of the initialisers; every parameter has a stream of its own.
        name: of the layer.
    """

    def __init__(self, feature_dim: int, units: int, embedding_dim: int, *, seed: int = 0, name: str = "encoder"):
        super().__init__(name=name)

        def own_seed(parameter: str) -> int:
            return int(np.random.SeedSequence([seed, zlib.crc32(parameter.encode())]).generate_state(1)[0])

        layout = {
            "gru.kernel": ((feature_dim, 3 * units), glorot_uniform_full(own_seed("gru.kernel"))),
            "gru.recurrent_kernel": ((units, 3 * units), orthogonal_full(own_seed("gru.recurrent_kernel"))),
            "gru.bias": ((3 * units,), "zeros"),
            "proj.kernel": ((units, embedding_dim), normc(0.01, own_seed("proj.kernel"))),
            "proj.bias": ((embedding_dim,), "zeros"),
        }
        self._named = {
            key: self.add_weight(name=key.replace(".", "_"), shape=shape, initializer=initializer)
            for key, (shape, initializer) in layout.items()
        }
        self.built = True

    def initial_weights(self) -> dict[str, tf.Tensor]:
        """Returns the initial weights by name, as tensors."""
        return {key: tf.convert_to_tensor(variable.value) for key, variable in self._named.items()}

    def call(self, inputs: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
        """Applies the layer's own weights; see `encode`."""
        return encode(self.initial_weights(), inputs, lengths)
