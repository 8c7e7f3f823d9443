"""The GRU and the task encoder (TESP specification, section 2.2) against stored numbers and against themselves."""

import pathlib

import numpy as np
import pytest
import tensorflow as tf

from metarl.networks import gru

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "data" / "golden" / "tesp_gru_dist.npz")
NAMES = ("kernel", "recurrent_kernel", "bias")
MODES = ("fast", "plain")


def assert_close(actual, expected, rtol=1e-5):
    expected = np.asarray(expected)
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=0, atol=rtol * np.abs(expected).max())


def golden_weights():
    return {name: tf.constant(GOLDEN[name]) for name in NAMES}


def test_hard_sigmoid_points():
    assert_close(gru.hard_sigmoid(tf.constant(GOLDEN["hard_sigmoid.x"])), GOLDEN["hard_sigmoid.y"])


def test_unit_check_value():
    ones = tf.ones((1, 1, 3))
    state = gru.gru_step(ones, projected=tf.ones((1, 1, 3)), state=tf.constant([[[0.5]]]))
    assert float(state[0, 0, 0]) == pytest.approx(0.577070, abs=1e-6)
    assert_close(state[0], GOLDEN["unit_check.s1"])


def test_golden_step():
    weights = golden_weights()
    projected = tf.constant(GOLDEN["x"]) @ weights["kernel"] + weights["bias"]
    state = gru.gru_step(weights["recurrent_kernel"][None], projected[None], tf.constant(GOLDEN["s0"])[None])
    assert_close(state[0], GOLDEN["s1"])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("compiled", [False, True])
def test_golden_sequences(mode, compiled):
    @tf.function(jit_compile=compiled)
    def loss_and_gradient(weights):
        with tf.GradientTape() as tape:
            tape.watch(weights)
            final = gru.gru_final_state(weights, GOLDEN["seq"][None], GOLDEN["seq_lens"][None], mode)
            loss = tf.reduce_sum(final[0] * GOLDEN["weight"])
        return final, loss, tape.gradient(loss, weights)

    final, loss, gradient = loss_and_gradient(golden_weights())
    assert_close(final[0], GOLDEN["seq_final"])
    assert_close(loss, GOLDEN["loss"])
    for name in NAMES:
        assert_close(gradient[name], GOLDEN[f"grad.{name}"])


def random_problem(tasks=3, episodes=4, horizon=6, features=5, units=7, embedding=3, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    shapes = {
        "gru.kernel": (tasks, features, 3 * units),
        "gru.recurrent_kernel": (tasks, units, 3 * units),
        "gru.bias": (tasks, 3 * units),
        "proj.kernel": (tasks, units, embedding),
        "proj.bias": (tasks, embedding),
    }
    weights = {key: tf.constant(0.7 * rng.standard_normal(shape), dtype) for key, shape in shapes.items()}
    inputs = rng.standard_normal((tasks, episodes, horizon, features)).astype(dtype)
    lengths = rng.integers(1, horizon + 1, (tasks, episodes)).astype(np.int32)
    lengths[0, 0], lengths[-1, -1] = horizon, 1
    inputs *= (np.arange(horizon) < lengths[..., None])[..., None]
    return weights, inputs, lengths


def test_encoder_is_projection_then_mean_over_present_episodes():
    weights, inputs, lengths = random_problem()
    lengths[1, 2] = 0
    gru_weights = {name: weights[f"gru.{name}"] for name in NAMES}
    final = np.asarray(gru.gru_final_state(gru_weights, inputs, lengths))
    projected = final @ np.asarray(weights["proj.kernel"]) + np.asarray(weights["proj.bias"])[:, None]
    expected = np.stack([projected[m][lengths[m] > 0].mean(axis=0) for m in range(3)])
    assert_close(gru.encode(weights, inputs, lengths), expected)
