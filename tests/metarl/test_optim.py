"""Adam's constants, the clipped surrogate and masked means."""

import numpy as np
import tensorflow as tf

from metarl.optim.adam import adam_init, adam_step
from metarl.optim.ppo import clipped_surrogate, masked_mean


def test_adam_is_tensorflow_ones():
    """Against the formula of section 3.5 in float64; the epsilon shows where gradients are tiny."""
    rng = np.random.default_rng(0)
    p = {"a": rng.normal(size=(3, 2)), "b": rng.normal(size=4)}
    m, v = ({name: np.zeros_like(x) for name, x in p.items()} for _ in range(2))
    found = {name: tf.constant(x, tf.float32) for name, x in p.items()}
    state = adam_init(found)
    for t in range(1, 8):
        g = {"a": rng.normal(size=(3, 2)), "b": 1e-9 * rng.normal(size=4)}
        for name in p:
            m[name] = 0.9 * m[name] + 0.1 * g[name]
            v[name] = 0.999 * v[name] + 0.001 * g[name] ** 2
            step = 0.01 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
            p[name] = p[name] - step * m[name] / (np.sqrt(v[name]) + 1e-8)
        gradients = {name: tf.constant(x, tf.float32) for name, x in g.items()}
        before = {name: x.numpy() for name, x in found.items()}
        found, state = adam_step(found, gradients, state, 0.01)
        assert not np.array_equal(before["a"], found["a"])
    assert state.step == 7
    for name in p:
        np.testing.assert_allclose(found[name], p[name], rtol=1e-4, atol=1e-6)


def test_adam_divides_sums_as_their_mean():
    rng = np.random.default_rng(1)
    parameters = {"a": tf.constant(rng.normal(size=(5, 3)), tf.float32)}
    sums = {"a": tf.constant(rng.normal(size=(5, 3)), tf.float32)}
    state = adam_init(parameters)
    of_sums = adam_step(parameters, sums, state, 0.01, count=7)
    of_mean = adam_step(parameters, {"a": sums["a"] / 7.0}, state, 0.01)
    tf.nest.map_structure(np.testing.assert_array_equal, of_sums, of_mean)
    undivided = adam_step(parameters, sums, state, 0.01)
    assert not np.array_equal(of_sums[1].first_moment["a"], undivided[1].first_moment["a"])


def test_clipped_surrogate_is_the_pessimistic_one():
    log_ratio = tf.math.log([0.5, 0.9, 1.1, 2.0])
    np.testing.assert_allclose(clipped_surrogate(log_ratio, tf.ones(4), 0.15), [0.5, 0.9, 1.1, 1.15], rtol=1e-6)
    np.testing.assert_allclose(clipped_surrogate(log_ratio, -tf.ones(4), 0.15), [-0.85, -0.9, -1.1, -2.0], rtol=1e-6)


def test_masked_mean_ignores_infinite_padding():
    x = tf.constant([[1.0, 2.0, np.inf], [4.0, np.nan, np.nan]])
    valid = tf.constant([[True, True, False], [True, False, False]])
    np.testing.assert_allclose(masked_mean(x, valid), [1.5, 4.0])
