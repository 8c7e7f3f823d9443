"""The rate of the GRU encoder's gradient with weights per task, against the matrix product.

Shapes: `M` tasks, `E` episodes per task, `H` steps, `F` features per step, `U` units.
"""

import tensorflow as tf

from benchmarks.machine import FlopReport, compare_with_matmul
from metarl.networks.gru import GRUEncoder, gru_final_state


def encoder_gflop(M: int, E: int, H: int, F: int, U: int) -> float:
    """Useful floating-point operations of one gradient, in 1e9.

    The recurrent products count three times (forward, data gradient, weight gradient), the input projection twice:
    inputs are data and need no gradient.
    """
    steps = M * E * H
    return 2 * steps * (3 * U * 3 * U + 2 * F * 3 * U) / 1e9


def encoder_gradient_rate(
    M: int = 20, E: int = 16, H: int = 200, F: int = 14, U: int = 256, repetitions: int = 7
) -> FlopReport:
    """Times the forward and backward pass over M full buffers of E episodes of H steps, weights per task."""
    layer = GRUEncoder(F, U, 8)
    initial = layer.initial_weights()
    weights = {
        name: tf.repeat(initial[f"gru.{name}"][tf.newaxis], M, axis=0)
        for name in ("kernel", "recurrent_kernel", "bias")
    }
    inputs = tf.random.stateless_normal((M, E, H, F), seed=(1, 0))
    factors = tf.random.stateless_normal((M, E, U), seed=(2, 0))
    lengths = tf.fill((M, E), H)

    @tf.function
    def gradient() -> dict[str, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(weights)
            loss = tf.reduce_sum(gru_final_state(weights, inputs, lengths) * factors)
        return tape.gradient(loss, weights)

    return compare_with_matmul(gradient, encoder_gflop(M, E, H, F, U), repetitions)
