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

Where the time goes: all tasks have weights of their own, so a step is M products of only E rows each. One loop over
time with batched products would fetch the weights of all tasks from memory at every step. Here every task has a loop of
its own, compiled by XLA: its recurrent weights stay in the cache of one core, each gate's [E, U] x [U, U] product is
small enough to run on the calling thread, and TensorFlow's inter-op threads run as many tasks at once as there are
cores. The weight gradients are formed after the backward loop, as few large products over all steps of a task. For
this to work the caller's function must be an ordinary `tf.function`; inside one with `jit_compile=True` the result is
the same, but the tasks run one after the other.
"""

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from metarl.networks.initializers import glorot_uniform_full, normc, orthogonal_full
from metarl.seeding import named_seed

# Far beyond where hard_sigmoid saturates; no recurrent term, at most U times the largest weight, can undo it.
_SATURATED = 1e6


def hard_sigmoid(x: tf.Tensor) -> tf.Tensor:
    """hs(x) = clip(0.2 x + 0.5, 0, 1), the recurrent activation of Keras 2 (Keras 3's is another function).

    The derivative is 0.2 where 0 < hs(x) < 1 and 0 elsewhere, so that it can be told from the stored value.
    """
    linear = 0.2 * x + 0.5
    return tf.where(linear <= 0.0, tf.zeros_like(x), tf.where(linear >= 1.0, tf.ones_like(x), linear))


def gru_step(recurrent_kernel: tf.Tensor, projected: tf.Tensor, state: tf.Tensor) -> tf.Tensor:
    """One step of the recurrence from the projected input.

    Args:
        recurrent_kernel: [M, U, 3U].
        projected: [M, E, 3U], x W + b.
        state: [M, E, U].

    Returns:
        [M, E, U], the next state.
    """
    projected_z, projected_r, projected_c = tf.split(projected, 3, axis=-1)
    recurrent_z, recurrent_r, recurrent_c = tf.split(recurrent_kernel, 3, axis=-1)
    z = hard_sigmoid(projected_z + tf.matmul(state, recurrent_z))
    r = hard_sigmoid(projected_r + tf.matmul(state, recurrent_r))
    c = tf.tanh(projected_c + tf.matmul(r * state, recurrent_c))
    return z * state + (1.0 - z) * c


def _time_major(inputs: tf.Tensor) -> tf.Tensor:
    """Rows of a task's inputs [E, H, F] in the order of the loop, [H E, F]."""
    episodes, horizon, features = inputs.shape
    return tf.reshape(tf.transpose(inputs, (1, 0, 2)), (horizon * episodes, features))


@tf.function(jit_compile=True)
def _forward(
    kernel: tf.Tensor, recurrent_kernel: tf.Tensor, bias: tf.Tensor, inputs: tf.Tensor, lengths: tf.Tensor
) -> tuple[tf.Tensor, ...]:
    """One task's final states [E, U], and per step [H, E, U]: states before the step, z, r and c."""
    episodes, horizon, _ = inputs.shape
    units = recurrent_kernel.shape[0]
    dtype = inputs.dtype
    rows = _time_major(inputs)
    # The input projection of all steps, gate by gate: the loop then reads whole contiguous blocks.
    projected = [
        tf.reshape(tf.matmul(rows, gate_kernel) + gate_bias, (horizon, episodes, units))
        for gate_kernel, gate_bias in zip(tf.split(kernel, 3, axis=1), tf.split(bias, 3), strict=True)
    ]
    over = tf.range(horizon)[:, tf.newaxis] >= lengths
    projected[0] = tf.where(over[:, :, tf.newaxis], tf.cast(_SATURATED, dtype), projected[0])
    recurrent_z, recurrent_r, recurrent_c = tf.split(recurrent_kernel, 3, axis=1)

    def step(t: Any, state: Any, states: Any, all_z: Any, all_r: Any, all_c: Any) -> Any:
        z = hard_sigmoid(projected[0][t] + tf.matmul(state, recurrent_z))
        r = hard_sigmoid(projected[1][t] + tf.matmul(state, recurrent_r))
        c = tf.tanh(projected[2][t] + tf.matmul(r * state, recurrent_c))
        new_state = z * state + (1.0 - z) * c
        return t + 1, new_state, states.write(t, state), all_z.write(t, z), all_r.write(t, r), all_c.write(t, c)

    arrays = [tf.TensorArray(dtype, horizon, element_shape=(episodes, units)) for _ in range(4)]
    # Nothing changes after the longest episode, so the loop ends there; the rest of the arrays stays 0.
    longest = tf.reduce_max(lengths)
    _, final, *arrays = tf.while_loop(lambda t, *_: t < longest, step, (0, tf.zeros((episodes, units), dtype), *arrays))
    return final, *(array.stack() for array in arrays)


@tf.function(jit_compile=True)
def _backward(
    recurrent_kernel: tf.Tensor,
    lengths: tf.Tensor,
    states: tf.Tensor,
    all_z: tf.Tensor,
    all_r: tf.Tensor,
    all_c: tf.Tensor,
    d_final: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """One task's derivatives with respect to the inputs of both gates [H, E, 2U] and of c [H, E, U], and r * s."""
    horizon, episodes, units = states.shape
    dtype = states.dtype
    # Transposed once: a product with a transposed right-hand side takes half as long again at every step.
    recurrent_z, recurrent_r, recurrent_c = (tf.transpose(part) for part in tf.split(recurrent_kernel, 3, axis=1))

    def through_hard_sigmoid(gate: tf.Tensor, d_gate: tf.Tensor) -> tf.Tensor:
        return tf.where((gate > 0.0) & (gate < 1.0), 0.2 * d_gate, tf.zeros_like(d_gate))

    def step(t: Any, d_state: Any, all_d_gates: Any, all_d_c: Any) -> Any:
        state, z, r, c = states[t], all_z[t], all_r[t], all_c[t]
        d_c = d_state * (1.0 - z) * (1.0 - c * c)
        d_reset_state = tf.matmul(d_c, recurrent_c)
        d_z = through_hard_sigmoid(z, d_state * (state - c))
        d_r = through_hard_sigmoid(r, d_reset_state * state)
        d_previous = d_state * z + d_reset_state * r + tf.matmul(d_z, recurrent_z) + tf.matmul(d_r, recurrent_r)
        return t - 1, d_previous, all_d_gates.write(t, tf.concat([d_z, d_r], axis=1)), all_d_c.write(t, d_c)

    arrays = [tf.TensorArray(dtype, horizon, element_shape=(episodes, width)) for width in (2 * units, units)]
    _, _, *arrays = tf.while_loop(lambda t, *_: t >= 0, step, (tf.reduce_max(lengths) - 1, d_final, *arrays))
    d_gates, d_c = (array.stack() for array in arrays)
    return d_gates, d_c, all_r * states


def _task_gradient(
    recurrent_kernel: tf.Tensor, inputs: tf.Tensor, lengths: tf.Tensor, stored: list[tf.Tensor], d_final: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """One task's gradients of kernel, recurrent kernel and bias; `stored` are `_forward`'s arrays."""
    d_gates, d_c, reset_states = _backward(recurrent_kernel, lengths, *stored, d_final)
    d_gates, d_c, reset_states, states = (
        tf.reshape(x, (-1, x.shape[-1])) for x in (d_gates, d_c, reset_states, stored[0])
    )
    rows = _time_major(inputs)
    d_kernel = [tf.matmul(rows, d, transpose_a=True) for d in (d_gates, d_c)]
    d_recurrent = [tf.matmul(states, d_gates, transpose_a=True), tf.matmul(reset_states, d_c, transpose_a=True)]
    d_bias = [tf.reduce_sum(d, axis=0) for d in (d_gates, d_c)]
    return tf.concat(d_kernel, axis=1), tf.concat(d_recurrent, axis=1), tf.concat(d_bias, axis=0)


@tf.custom_gradient
def _final_state_fast(
    kernel: tf.Tensor, recurrent_kernel: tf.Tensor, bias: tf.Tensor, inputs: tf.Tensor, lengths: tf.Tensor
) -> Any:
    # An eager tape looks into this function; the compiled loops inside must appear as constants to it.
    kernels, recurrent_kernels, biases = (tf.unstack(tf.stop_gradient(x)) for x in (kernel, recurrent_kernel, bias))
    task_inputs, task_lengths = tf.unstack(tf.stop_gradient(inputs)), tf.unstack(lengths)
    finals, stored = [], []
    for arguments in zip(kernels, recurrent_kernels, biases, task_inputs, task_lengths, strict=True):
        final, *arrays = _forward(*arguments)
        finals.append(final)
        stored.append(arrays)

    @tf.custom_gradient
    def first_derivative(d_final: tf.Tensor, *_weights: tf.Tensor) -> Any:
        d_finals = tf.unstack(tf.stop_gradient(d_final))
        per_task = zip(recurrent_kernels, task_inputs, task_lengths, stored, d_finals, strict=True)
        gradients = [tf.stack(parts) for parts in zip(*(_task_gradient(*task) for task in per_task), strict=True)]

        def second_derivative(*_: tf.Tensor) -> Any:
            raise LookupError("the fast encoder has first derivatives only; use differentiable='plain'")

        return gradients, second_derivative

    def gradient(d_final: tf.Tensor) -> Any:
        return *first_derivative(d_final, kernel, recurrent_kernel, bias), None, None

    return tf.stack(finals), gradient


def _final_state_plain(
    kernel: tf.Tensor, recurrent_kernel: tf.Tensor, bias: tf.Tensor, inputs: tf.Tensor, lengths: tf.Tensor
) -> tf.Tensor:
    tasks, episodes, horizon, features = inputs.shape
    units = recurrent_kernel.shape[1]
    flat = tf.reshape(tf.transpose(inputs, (0, 2, 1, 3)), (tasks, horizon * episodes, features))
    projected = tf.reshape(tf.matmul(flat, kernel) + bias[:, tf.newaxis], (tasks, horizon, episodes, 3 * units))
    projected = tf.transpose(projected, (1, 0, 2, 3))
    over = tf.range(horizon)[:, tf.newaxis, tf.newaxis] >= lengths
    saturated = over[..., tf.newaxis] & (tf.range(3 * units) < units)
    projected = tf.where(saturated, tf.cast(_SATURATED, projected.dtype), projected)
    return tf.while_loop(
        lambda t, state: t < horizon,
        lambda t, state: (t + 1, gru_step(recurrent_kernel, projected[t], state)),
        (0, tf.zeros((tasks, episodes, units), projected.dtype)),
        maximum_iterations=horizon,
    )[1]


_VARIANTS = {"fast": _final_state_fast, "plain": _final_state_plain}


def gru_final_state(
    weights: Mapping[str, Any], inputs: tf.Tensor, lengths: tf.Tensor, differentiable: str = "fast"
) -> tf.Tensor:
    """Final GRU state of every episode, from a zero initial state (TESP specification, section 2.2).

    Args:
        weights: `kernel` [F, 3U] or [M, F, 3U], `recurrent_kernel` [U, 3U] or [M, U, 3U], `bias` [3U] or [M, 3U]; each
            shared by the tasks or per task.
        inputs: [M, E, H, F], static shape; what stands after an episode's end has no influence, but must be finite.
        lengths: [M, E] int32, 0 to H; an episode of length 0 ends in the zero state.
        differentiable: "fast", first derivatives with respect to the weights only (inputs are data and get none), or
            "plain", automatic differentiation of any order, several times slower.

    Returns:
        [M, E, U].

    Raises:
        ValueError: unknown `differentiable`, or shapes that do not fit.
        LookupError: on taking a second derivative of the fast variant.
    """
    if differentiable not in _VARIANTS:
        raise ValueError(f"differentiable must be one of {sorted(_VARIANTS)}, not {differentiable!r}")
    kernel, recurrent_kernel, bias = (
        tf.convert_to_tensor(weights[name]) for name in ("kernel", "recurrent_kernel", "bias")
    )
    inputs = tf.cast(inputs, kernel.dtype)
    lengths = tf.cast(lengths, tf.int32)
    if inputs.shape.rank != 4 or not inputs.shape.is_fully_defined():
        raise ValueError(f"inputs must have a static shape [M, E, H, F], not {inputs.shape}")
    tasks, episodes, _, features = inputs.shape
    units = recurrent_kernel.shape[-2]
    lengths.shape.assert_is_compatible_with((tasks, episodes))
    per_task_shapes = ((tasks, features, 3 * units), (tasks, units, 3 * units), (tasks, 3 * units))
    per_task = []
    for value, shape in zip((kernel, recurrent_kernel, bias), per_task_shapes, strict=True):
        if value.shape.rank < len(shape):
            # Shared weights are repeated per task; their gradient is then summed over the tasks by itself.
            value = tf.broadcast_to(value, (tasks, *value.shape))
        value.shape.assert_is_compatible_with(shape)
        per_task.append(value)
    return _VARIANTS[differentiable](*per_task, inputs, lengths)


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

        layout = {
            "gru.kernel": ((feature_dim, 3 * units), glorot_uniform_full(named_seed(seed, "gru.kernel"))),
            "gru.recurrent_kernel": ((units, 3 * units), orthogonal_full(named_seed(seed, "gru.recurrent_kernel"))),
            "gru.bias": ((3 * units,), "zeros"),
            "proj.kernel": ((units, embedding_dim), normc(0.01, named_seed(seed, "proj.kernel"))),
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
