"""Every method's policy in NumPy equals the compiled one."""

import numpy as np
import pytest
import tensorflow as tf

from tesp.computation import Computation, Objective
from tesp.methods import MAESN, MAML, TESP, EncoderInput, MetaSGD, TESPAdaptivePolicy

O, A, M, R, B, H = 3, 2, 2, 4, 3, 4  # noqa: E741
SMALL = {"hidden_sizes": (5, 4), "inner_lr": 0.05}
CONTEXT = {"embedding_dim": 3, "embedding_coeff": 0.1}
METHODS = [
    MAML(**SMALL),
    MetaSGD(**SMALL),
    MAESN(**SMALL, **CONTEXT),
    TESP(**SMALL, **CONTEXT, gru_units=4),
    TESPAdaptivePolicy(**SMALL, **CONTEXT, gru_units=4),
]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
def test_equals_the_compiled_policy(method):
    rng = np.random.default_rng(0)
    normal = lambda *shape: tf.constant(rng.normal(0, 0.4, shape), tf.float32)  # noqa: E731
    parameters = tf.nest.map_structure(lambda x: normal(*x.shape), method.initial_parameters(0, O, A))
    accumulated = {name: normal(M, *value.shape) for name, value in parameters.inner.items()}
    episodes = None
    if method.uses_encoder:
        features = normal(M, B, H, method.feature_dim(O, A))
        episodes = EncoderInput(features, tf.fill((M, B), H))
    computation = Computation(method, Objective(0.99, 0.97, 60.0, 0.15), H)
    adapted, context = computation.prepare(parameters, accumulated, episodes)
    arguments = {**parameters.shared, **adapted}
    if context is not None:
        arguments["context"] = context
    observation, normals = normal(M, R, O), normal(M, R, A)
    expected = computation.act(arguments, observation, normals)
    arrays = {name: value.numpy() for name, value in arguments.items()}
    output = computation.host_act(arrays)(observation.numpy(), normals.numpy())
    np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-5)
