"""The NumPy policy against the TensorFlow one it stands in for."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from metarl.networks.mlp import mlp
from metarl.policies import gaussian, host

M, R, O, A, C = 3, 4, 5, 2, 3  # noqa: E741


def random_weights(rng, per_task, context_dim):
    widths = [O + context_dim, 16, 8, 2 * A]
    lead = (M,) if per_task else ()
    weights = {"other.kernel": rng.normal(size=(2, 2))}
    for i, (rows, columns) in enumerate(itertools.pairwise(widths)):
        weights[f"mlp{i}.kernel"] = rng.normal(size=(*lead, rows, columns)) / np.sqrt(rows)
        weights[f"mlp{i}.bias"] = rng.normal(size=(*lead, columns))
    return {name: value.astype(np.float32) for name, value in weights.items()}


@pytest.mark.parametrize("per_task", [False, True])
@pytest.mark.parametrize("with_context", [False, True])
def test_equals_the_tensorflow_policy(per_task, with_context):
    rng = np.random.default_rng(0)
    weights = random_weights(rng, per_task, C if with_context else 0)
    context = rng.normal(size=(M, C)).astype(np.float32) if with_context else None
    policy = host.gaussian_mlp(weights, context)
    tensors = {name: tf.constant(value) for name, value in weights.items()}
    for _ in range(2):
        observation = rng.normal(size=(M, R, O)).astype(np.float32)
        normals = rng.normal(size=(M, R, A)).astype(np.float32)
        before = observation.copy(), normals.copy()
        output = policy(observation, normals)
        logits = mlp(tensors, tf.constant(observation), None if context is None else tf.constant(context))
        expected = tf.concat([logits, gaussian.sample(logits, tf.constant(normals))], axis=-1)
        assert output.dtype == np.float32
        np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(observation, before[0])
        np.testing.assert_array_equal(normals, before[1])


def test_a_task_does_not_depend_on_its_neighbours():
    rng = np.random.default_rng(1)
    weights = random_weights(rng, True, 0)
    observation = rng.normal(size=(M, R, O)).astype(np.float32)
    normals = rng.normal(size=(M, R, A)).astype(np.float32)
    together = host.gaussian_mlp(weights)(observation, normals)
    for i in range(M):
        mine = {name: value[i : i + 1] for name, value in weights.items()}
        alone = host.gaussian_mlp(mine)(observation[i : i + 1], normals[i : i + 1])
        np.testing.assert_array_equal(together[i], alone[0])
