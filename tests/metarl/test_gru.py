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
    """Weights per task, inputs that are zero after an episode's end, lengths from 1 to the horizon."""
    rng = np.random.default_rng(seed)
    shapes = {
        "gru.kernel": (tasks, features, 3 * units),
        "gru.recurrent_kernel": (tasks, units, 3 * units),
        "gru.bias": (tasks, 3 * units),
        "proj.kernel": (tasks, units, embedding),
        "proj.bias": (tasks, embedding),
    }
    weights = {key: tf.constant(0.7 * rng.standard_normal(shape), dtype) for key, shape in shapes.items()}
    weights["gru.recurrent_kernel"] *= np.sqrt(7 / units)  # keeps wide layers out of saturation
    inputs = rng.standard_normal((tasks, episodes, horizon, features)).astype(dtype)
    lengths = rng.integers(1, horizon + 1, (tasks, episodes)).astype(np.int32)
    lengths[0, 0], lengths[-1, -1] = horizon, 1
    inputs *= (np.arange(horizon) < lengths[..., None])[..., None]
    return weights, inputs, lengths


def loss_of(embedding):
    """A number that depends on every entry of the embedding differently."""
    factors = np.cos(np.arange(1, 1 + np.prod(embedding.shape))).reshape(embedding.shape)
    return tf.reduce_sum(embedding * tf.constant(factors, embedding.dtype))


def value_and_gradient(weights, inputs, lengths, mode="fast", compiled=False):
    @tf.function(jit_compile=compiled)
    def run(weights):
        with tf.GradientTape() as tape:
            tape.watch(weights)
            embedding = gru.encode(weights, inputs, lengths, mode)
            loss = loss_of(embedding)
        return embedding, tape.gradient(loss, weights)

    embedding, gradient = run(weights)
    return np.asarray(embedding), {key: np.asarray(value) for key, value in gradient.items()}


def test_encoder_is_projection_then_mean_over_present_episodes():
    weights, inputs, lengths = random_problem()
    lengths[1, 2] = 0
    gru_weights = {name: weights[f"gru.{name}"] for name in NAMES}
    final = np.asarray(gru.gru_final_state(gru_weights, inputs, lengths))
    projected = final @ np.asarray(weights["proj.kernel"]) + np.asarray(weights["proj.bias"])[:, None]
    expected = np.stack([projected[m][lengths[m] > 0].mean(axis=0) for m in range(3)])
    assert_close(gru.encode(weights, inputs, lengths), expected)


@pytest.mark.parametrize(("units", "compiled"), [(7, False), (7, True), (256, False)])
def test_fast_gradient_is_the_plain_gradient(units, compiled):
    problem = random_problem(units=units)
    embedding, gradient = value_and_gradient(*problem, "fast", compiled)
    expected_embedding, expected = value_and_gradient(*problem, "plain")
    assert_close(embedding, expected_embedding, rtol=1e-5)
    for key in expected:
        assert np.abs(expected[key]).max() > 0
        assert_close(gradient[key], expected[key], rtol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_gradient_by_finite_differences(mode):
    weights, inputs, lengths = random_problem(dtype=np.float64)
    _, gradient = value_and_gradient(weights, inputs, lengths, mode)
    rng = np.random.default_rng(5)
    direction = {key: tf.constant(rng.standard_normal(value.shape)) for key, value in weights.items()}
    step = 1e-6
    ends = []
    for sign in (1, -1):
        moved = {key: value + sign * step * direction[key] for key, value in weights.items()}
        ends.append(loss_of(gru.encode(moved, inputs, lengths, "plain")).numpy())
    directional = sum(float(np.sum(gradient[key] * direction[key])) for key in weights)
    assert directional == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-6)


def test_plain_variant_has_second_derivatives():
    weights, inputs, lengths = random_problem(tasks=2, episodes=2, horizon=4, dtype=np.float64)
    rng = np.random.default_rng(6)
    direction = {key: tf.constant(rng.standard_normal(value.shape)) for key, value in weights.items()}

    @tf.function
    def hessian_vector_product():
        with tf.GradientTape() as outer:
            outer.watch(weights)
            with tf.GradientTape() as inner:
                inner.watch(weights)
                loss = tf.reduce_sum(tf.square(gru.encode(weights, inputs, lengths, "plain")))
            gradient = inner.gradient(loss, weights)
            product = tf.add_n([tf.reduce_sum(gradient[key] * direction[key]) for key in weights])
        return outer.gradient(product, weights)

    @tf.function
    def gradient_of_square(point):
        with tf.GradientTape() as tape:
            tape.watch(point)
            loss = tf.reduce_sum(tf.square(gru.encode(point, inputs, lengths, "fast")))
        return tape.gradient(loss, point)

    step = 1e-6
    ends = [
        gradient_of_square({key: value + sign * step * direction[key] for key, value in weights.items()})
        for sign in (1, -1)
    ]
    actual = hessian_vector_product()
    for key in weights:
        assert_close(actual[key], (ends[0][key] - ends[1][key]) / (2 * step), rtol=1e-6)


@pytest.mark.parametrize("traced", [False, True])
def test_second_derivative_of_the_fast_variant_is_refused(traced):
    weights, inputs, lengths = random_problem()

    def nested(stop):
        with tf.GradientTape() as outer:
            outer.watch(weights)
            with tf.GradientTape() as inner:
                inner.watch(weights)
                loss = tf.reduce_sum(tf.square(gru.encode(weights, inputs, lengths)))
            gradient = inner.gradient(loss, weights)
            moved = {key: weights[key] - 0.1 * stop(gradient[key]) for key in weights}
            loss = tf.reduce_sum(tf.square(gru.encode(moved, inputs, lengths)))
        return outer.gradient(loss, weights)

    run = tf.function(nested, autograph=False) if traced else nested
    with pytest.raises(LookupError, match="plain"):
        run(tf.identity)
    # A first-order meta-gradient goes through the adapted weights, the inner gradient being a constant.
    for value in run(tf.stop_gradient).values():
        assert np.any(value != 0)


@pytest.mark.parametrize("mode", MODES)
def test_padding_has_no_influence(mode):
    weights, inputs, lengths = random_problem()
    embedding, gradient = value_and_gradient(weights, inputs, lengths, mode)
    over = np.arange(6) >= lengths[..., None]
    garbage = inputs + 100 * over[..., None] * np.random.default_rng(1).standard_normal(inputs.shape).astype("f")
    longer = np.pad(garbage, ((0, 0), (0, 2), (0, 3), (0, 0)))  # more capacity in episodes and in time
    padded = value_and_gradient(weights, longer, np.pad(lengths, ((0, 0), (0, 2))), mode)
    assert_close(padded[0], embedding, rtol=1e-6)
    for key in gradient:
        assert_close(padded[1][key], gradient[key], rtol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_state_is_copied_through_exactly(mode):
    weights, inputs, lengths = random_problem()
    gru_weights = {name: weights[f"gru.{name}"] for name in NAMES}
    final = np.asarray(gru.gru_final_state(gru_weights, inputs, lengths, mode))
    assert np.all(final[-1, -1] != 0)
    cut = np.asarray(gru.gru_final_state(gru_weights, inputs[:, :, :1], np.minimum(lengths, 1), mode))
    np.testing.assert_allclose(cut[-1, -1], final[-1, -1], rtol=0, atol=1e-7)
    lengths[1] = 0
    np.testing.assert_array_equal(gru.gru_final_state(gru_weights, inputs, lengths, mode)[1], 0.0)


def test_order_of_episodes_has_no_influence():
    weights, inputs, lengths = random_problem()
    order = [2, 0, 3, 1]
    embedding, gradient = value_and_gradient(weights, inputs, lengths)
    permuted = value_and_gradient(weights, inputs[:, order], lengths[:, order])
    assert_close(permuted[0], embedding, rtol=1e-6)
    for key in gradient:
        assert_close(permuted[1][key], gradient[key], rtol=1e-5)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shared", [False, True])
def test_empty_buffer_gives_the_zero_embedding(mode, shared):
    weights, inputs, lengths = random_problem()
    if shared:
        weights = {key: value[0] for key, value in weights.items()}
    lengths[1] = 0
    embedding, gradient = value_and_gradient(weights, inputs, lengths, mode)
    np.testing.assert_array_equal(embedding[1], 0.0)
    assert np.all(embedding[[0, 2]] != 0)
    for key, value in gradient.items():
        assert np.all(np.isfinite(value))
        if not shared:
            np.testing.assert_array_equal(value[1], 0.0)
            assert np.any(value[0] != 0), key
    embedding, gradient = value_and_gradient(weights, inputs, np.zeros_like(lengths), mode)
    np.testing.assert_array_equal(embedding, 0.0)
    for value in gradient.values():
        np.testing.assert_array_equal(value, 0.0)


@pytest.mark.parametrize("mode", MODES)
def test_tasks_are_independent(mode):
    weights, inputs, lengths = random_problem()
    embedding, _ = value_and_gradient(weights, inputs, lengths, mode)
    for m in range(3):
        alone = value_and_gradient(
            {key: value[m : m + 1] for key, value in weights.items()}, inputs[m : m + 1], lengths[m : m + 1], mode
        )
        assert_close(alone[0][0], embedding[m])
    order = [2, 0, 1]
    permuted = value_and_gradient(
        {key: tf.gather(value, order) for key, value in weights.items()}, inputs[order], lengths[order], mode
    )
    assert_close(permuted[0], embedding[order])


@pytest.mark.parametrize("mode", MODES)
def test_shared_weights_are_equal_weights_per_task(mode):
    weights, inputs, lengths = random_problem()
    shared = {key: value[0] for key, value in weights.items()}
    repeated = {key: tf.repeat(value[tf.newaxis], 3, axis=0) for key, value in shared.items()}
    embedding, gradient = value_and_gradient(shared, inputs, lengths, mode)
    per_task_embedding, per_task_gradient = value_and_gradient(repeated, inputs, lengths, mode)
    assert_close(embedding, per_task_embedding)
    for key, value in gradient.items():
        assert value.shape == shared[key].shape
        assert_close(value, per_task_gradient[key].sum(axis=0))


def test_traced_once_over_batches_with_different_ends():
    weights, inputs, lengths = random_problem()
    traces = []

    @tf.function
    def step(weights, inputs, lengths):
        traces.append(1)
        with tf.GradientTape() as tape:
            tape.watch(weights)
            loss = tf.reduce_sum(gru.encode(weights, inputs, lengths))
        return tape.gradient(loss, weights)

    step(weights, tf.constant(inputs), tf.constant(lengths))
    inner_traces = gru._forward.experimental_get_tracing_count(), gru._backward.experimental_get_tracing_count()
    for ends in (np.ones_like(lengths), np.zeros_like(lengths), lengths[::-1].copy()):
        step(weights, tf.constant(inputs), tf.constant(ends))
    assert len(traces) == 1
    assert inner_traces == (
        gru._forward.experimental_get_tracing_count(),
        gru._backward.experimental_get_tracing_count(),
    )


def test_repeated_gradients_have_equal_bits():
    # Wide and long enough for the weight gradients' products to be split over threads.
    weights, inputs, lengths = random_problem(tasks=3, episodes=16, horizon=200, units=256)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            tape.watch(weights)
            loss = tf.reduce_sum(gru.encode(weights, inputs, lengths))
        return tape.gradient(loss, weights)

    first = {key: np.asarray(value) for key, value in step().items()}
    for _ in range(8):
        for key, value in step().items():
            np.testing.assert_array_equal(value, first[key])


def test_wrong_use_is_refused():
    weights, inputs, lengths = random_problem()
    gru_weights = {name: weights[f"gru.{name}"] for name in NAMES}
    with pytest.raises(ValueError, match=r"fast.*plain.*slow"):
        gru.gru_final_state(gru_weights, inputs, lengths, "slow")
    with pytest.raises(ValueError, match=r"\[M, E, H, F\]"):
        gru.gru_final_state(gru_weights, inputs[0], lengths)
    with pytest.raises(ValueError, match="incompatible"):
        gru.gru_final_state(gru_weights, inputs[..., :-1], lengths)
    with pytest.raises(ValueError, match="incompatible"):
        gru.gru_final_state(gru_weights, inputs, lengths[:, :-1])


def test_layer_owns_names_shapes_and_initial_values():
    layer = gru.GRUEncoder(feature_dim=14, units=256, embedding_dim=8, seed=3)
    weights = layer.initial_weights()
    shapes = {key: tuple(value.shape) for key, value in weights.items()}
    assert shapes == {
        "gru.kernel": (14, 768),
        "gru.recurrent_kernel": (256, 768),
        "gru.bias": (768,),
        "proj.kernel": (256, 8),
        "proj.bias": (8,),
    }
    assert layer.count_params() == 210_184  # the wheeled encoder of the specification's table
    np.testing.assert_allclose(np.linalg.norm(weights["proj.kernel"], axis=0), 0.01, rtol=1e-5)
    recurrent = np.asarray(weights["gru.recurrent_kernel"])
    np.testing.assert_allclose(recurrent @ recurrent.T, np.eye(256), atol=1e-5)
    assert np.abs(weights["gru.kernel"]).max() <= np.sqrt(6 / (14 + 768))
    assert not np.any(weights["gru.bias"])
    assert not np.any(weights["proj.bias"])
    inputs = np.random.default_rng(0).standard_normal((2, 3, 5, 14)).astype(np.float32)
    lengths = np.array([[5, 2, 0], [1, 3, 4]], np.int32)
    assert_close(layer(inputs, lengths), gru.encode(weights, inputs, lengths))
