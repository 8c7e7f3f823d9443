"""The Gaussian policy: forms of its weights, the floor of its log-std, NumPy against TensorFlow, bad settings."""

import numpy as np
import pytest
import tensorflow as tf

from mbmpo import distributions
from mbmpo.policies import GaussianMLPPolicy
from metarl.experiment.errors import UserError


def weights_per_task(policy, num_tasks, seed=0):
    rng = np.random.default_rng(seed)
    shared = policy.initial_weights(1, 4, 2)
    return {
        name: tf.constant(np.asarray(value) + 0.3 * rng.normal(size=(num_tasks, *value.shape)), tf.float32)
        for name, value in shared.items()
    }


def test_initial_weights():
    policy = GaussianMLPPolicy(hidden_sizes=(32, 16), init_std=0.5)
    weights = policy.initial_weights(3, 4, 2)
    assert {name: tuple(value.shape) for name, value in weights.items()} == {
        "mlp0.kernel": (4, 32),
        "mlp0.bias": (32,),
        "mlp1.kernel": (32, 16),
        "mlp1.bias": (16,),
        "mlp2.kernel": (16, 2),
        "mlp2.bias": (2,),
        "log_std": (2,),
    }
    kernel, limit = weights["mlp1.kernel"].numpy(), np.sqrt(6 / 48)
    assert np.abs(kernel).max() <= limit
    assert np.abs(kernel).max() > 0.9 * limit
    np.testing.assert_array_equal(weights["mlp1.bias"], 0.0)
    np.testing.assert_allclose(weights["log_std"], np.log(0.5), rtol=1e-6)
    again, other = (policy.initial_weights(seed, 4, 2)["mlp0.kernel"] for seed in (3, 4))
    np.testing.assert_array_equal(again, weights["mlp0.kernel"])
    assert np.max(np.abs(other - again)) > 0.1


def test_shared_weights_are_equal_ones_for_every_task():
    policy = GaussianMLPPolicy(hidden_sizes=(8, 8))
    shared = {name: value[0] for name, value in weights_per_task(policy, 1).items()}
    repeated = {name: tf.stack([value] * 3) for name, value in shared.items()}
    observation = tf.constant(np.random.default_rng(0).normal(size=(3, 5, 4)), tf.float32)
    logits = policy.logits(shared, observation)
    assert logits.shape == (3, 5, 4)
    np.testing.assert_allclose(logits, policy.logits(repeated, observation), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("parametrization", ["log", "softplus"])
@pytest.mark.parametrize("per_task", [False, True])
def test_numpy_equals_tensorflow(parametrization, per_task):
    policy = GaussianMLPPolicy(hidden_sizes=(8, 8), std_parametrization=parametrization)
    weights = weights_per_task(policy, 3)
    if not per_task:
        weights = {name: value[0] for name, value in weights.items()}
    rng = np.random.default_rng(1)
    observation, noise = (rng.normal(size=(3, 5, k)).astype(np.float32) for k in (4, 2))
    found = policy.act(weights, tf.constant(observation), tf.constant(noise)).numpy()
    assert found.shape == (3, 5, 6)
    on_host = policy.host_act({name: value.numpy() for name, value in weights.items()})(observation, noise)
    np.testing.assert_allclose(on_host, found, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[..., 4:], found[..., :2] + np.exp(found[..., 2:4]) * noise, rtol=1e-5, atol=1e-6)


def test_softplus_is_the_log_of_the_log():
    policy = GaussianMLPPolicy(std_parametrization="softplus", init_std=0.7)
    parameter = policy.initial_weights(0, 3, 1)["log_std"]
    np.testing.assert_allclose(np.log1p(np.exp(parameter)), 0.7, rtol=1e-6)
    np.testing.assert_allclose(policy.log_std(parameter), np.log(0.7), rtol=1e-6)


@pytest.mark.parametrize("parametrization", ["log", "softplus"])
def test_derivatives_of_the_log_std(parametrization):
    policy = GaussianMLPPolicy(std_parametrization=parametrization, min_std=0.1)
    p = tf.constant([-5.0, -1.0, 0.3, 2.0])
    with tf.GradientTape() as outer:
        outer.watch(p)
        with tf.GradientTape() as inner:
            inner.watch(p)
            value = policy.log_std(p)
        first = inner.gradient(value, p)
    second = outer.gradient(first, p, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    found = policy.log_std_derivatives(p)
    np.testing.assert_allclose(found[0], first, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[1], second, rtol=1e-4, atol=1e-5)
    assert float(found[0][0]) == 0.0
    np.testing.assert_allclose(np.exp(policy.log_std(p)[0]), 0.1, rtol=1e-5)
    frozen = GaussianMLPPolicy(std_parametrization=parametrization, learn_std=False)
    np.testing.assert_array_equal(frozen.log_std_derivatives(p)[0], 0.0)


def test_resetting_the_standard_deviation_leaves_the_mean():
    policy = GaussianMLPPolicy(hidden_sizes=(8,), init_std=0.2)
    weights = policy.initial_weights(0, 4, 2)
    reset = policy.with_std(weights, 1.0)
    np.testing.assert_array_equal(reset["log_std"], 0.0)
    np.testing.assert_array_equal(reset["mlp0.kernel"], weights["mlp0.kernel"])


def test_divergence_is_zero_for_equals_and_the_log_ratio_is_the_difference():
    rng = np.random.default_rng(0)
    a, b = (tf.constant(0.3 * rng.normal(size=(7, 4)), tf.float32) for _ in range(2))
    action = tf.constant(rng.normal(size=(7, 2)), tf.float32)
    np.testing.assert_allclose(distributions.kl_divergence(a, a), 0.0, atol=1e-6)
    assert np.all(distributions.kl_divergence(a, b).numpy() > 0.0)
    ratio = distributions.likelihood_ratio(a, b, action)
    np.testing.assert_allclose(
        np.log(ratio), distributions.log_prob(a, action) - distributions.log_prob(b, action), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden_sizes": []}, "hidden_sizes"),
        ({"hidden_sizes": (0,)}, "hidden_sizes"),
        ({"init_std": 0.0}, "init_std"),
        ({"min_std": 2.0}, "min_std"),
        ({"std_parametrization": "logs"}, "did you mean 'log'"),
        ({"learn_std": 1}, "learn_std"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(UserError, match=message):
        GaussianMLPPolicy(**settings)
