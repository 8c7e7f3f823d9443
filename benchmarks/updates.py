"""The learner's compiled functions against the matrix product: policy gradients, encoder, whole meta-updates.

Shapes: `M` tasks, `R` copies per task, `H` horizon, `S` steps per task, `U` GRU units, `D` embedding.
"""

import itertools

import numpy as np
import tensorflow as tf

from benchmarks.encoder import encoder_gflop
from benchmarks.machine import FlopReport, compare_with_matmul
from metarl.sampling.quota import make_quota
from metarl.sampling.steps import Steps
from tesp.computation import Computation, Objective
from tesp.methods import EncoderInput, MetaParameters, Method
from tesp.objectives import Round

OBJECTIVE = Objective(gamma=0.99, lambda_=0.97, inner_grad_clip=60.0, clip_param=0.15)


def policy_gflop(method: Method, observation_dim: int, action_dim: int, rows: int) -> float:
    """Useful floating-point operations of one policy gradient over `rows` steps, in 1e9.

    Forward and weight gradient of every layer, data gradient of every layer but the observation's part of the first;
    biases and nonlinearities are not counted, and neither is padding.
    """
    widths = [observation_dim + method.context_dim, *method.hidden_sizes, 2 * action_dim]
    weights = [a * b for a, b in itertools.pairwise(widths)]
    # The context is computed once per task, not per step.
    first = observation_dim * widths[1]
    return 2 * rows * (2 * (first + sum(weights[1:])) + sum(weights[1:])) / 1e9


def synthetic_round(
    method: Method, observation_dim: int, action_dim: int, M: int, R: int, H: int, episodes: int = 16
) -> Round:
    """A round of full-length episodes with random contents, and a full buffer."""
    S = make_quota("per_task", M, R, H, ends_early=True).capacity
    rng = np.random.default_rng(0)
    normal = lambda *shape: rng.standard_normal(shape, np.float32)  # noqa: E731
    valid = np.broadcast_to(np.arange(S) < R * H, (M, S))
    steps = Steps(
        observation=normal(M, S, observation_dim),
        action=normal(M, S, action_dim),
        reward=-np.abs(normal(M, S)),
        logits=0.1 * normal(M, S, 2 * action_dim),
        time=np.broadcast_to(np.arange(S, dtype=np.int32) % H, (M, S)),
        valid=valid,
        last=valid & (np.arange(S) % H == H - 1),
    )
    data = None
    if method.uses_encoder:
        features = normal(M, episodes, H, method.feature_dim(observation_dim, action_dim))
        data = EncoderInput(tf.constant(features), tf.fill((M, episodes), H))
    return Round(tf.nest.map_structure(tf.constant, steps), tf.constant(normal(M, S)), data)


class Updates:
    """The compiled gradients of one method at one size, on synthetic data.

    Args:
        method: the method.
        observation_dim: O.
        action_dim: A.
        M: tasks.
        R: copies per task.
        H: horizon.
        episodes: buffered episodes of each task.
    """

    def __init__(
        self, method: Method, observation_dim: int, action_dim: int, M: int, R: int, H: int, episodes: int = 16
    ):
        self._compute = Computation(method, OBJECTIVE, H)
        self._parameters: MetaParameters = method.initial_parameters(1, observation_dim, action_dim)
        self._accumulated = {n: tf.zeros([M, *x.shape]) for n, x in self._parameters.inner.items()}
        self._data = synthetic_round(method, observation_dim, action_dim, M, R, H, episodes)
        self.gflop = policy_gflop(method, observation_dim, action_dim, M * R * H)
        if method.uses_encoder:
            features = method.feature_dim(observation_dim, action_dim)
            self.gflop += encoder_gflop(M, episodes, H, features, method.gru_units)

    def inner(self, repetitions: int = 7) -> FlopReport:
        """One fast-update of all tasks."""
        return compare_with_matmul(
            lambda: self._compute.inner_step(self._parameters, self._accumulated, self._data), self.gflop, repetitions
        )

    def outer(self, repetitions: int = 7) -> FlopReport:
        """One evaluation of the outer loss with its gradient."""
        return compare_with_matmul(
            lambda: self._compute.outer_gradient(self._parameters, self._accumulated, self._data, ()),
            self.gflop,
            repetitions,
        )
