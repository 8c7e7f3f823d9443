"""Rates of the dynamics ensemble: its fit, and predictions of rows grouped by their drawn member.

Useful floating-point operations: six per weight and row for a training step, two for a prediction or a validation.
"""

import itertools
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from benchmarks.machine import FlopReport, compare_with_matmul
from mbmpo.dynamics import DynamicsEnsemble
from mbmpo.transitions import Transitions


class FitSizes(NamedTuple):
    """Half-cheetah at the size at which the original was timed, unless said otherwise.

    Attributes:
        models: E.
        hidden: units of both hidden layers.
        batch_size: rows of a batch.
        rows: N transitions.
        epochs: of a fit.
        observation_dim: O.
        action_dim: A.
    """

    models: int = 5
    hidden: int = 512
    batch_size: int = 500
    rows: int = 6000
    epochs: int = 30
    observation_dim: int = 17
    action_dim: int = 6


def weights_per_model(sizes: FitSizes) -> int:
    """Entries of one model's kernels."""
    widths = (sizes.observation_dim + sizes.action_dim, sizes.hidden, sizes.hidden, sizes.observation_dim)
    return sum(rows * columns for rows, columns in itertools.pairwise(widths))


def fit_rate(sizes: FitSizes, repetitions: int) -> FlopReport:
    """A whole fit against the matrix product; `seconds` is what a user waits."""
    ensemble, data = _ensemble(sizes), _transitions(sizes)
    state = ensemble.initial_state(0, sizes.observation_dim, sizes.action_dim)

    def work() -> object:
        return ensemble.fit(state, data, seed=0, iteration=0, max_epochs=sizes.epochs)[0].weights

    train = ensemble.num_train_rows(sizes.rows)
    per_epoch = 6 * train + 2 * (sizes.rows - train)
    gflop = sizes.epochs * sizes.models * weights_per_model(sizes) * per_epoch / 1e9
    return compare_with_matmul(work, gflop, repetitions)


def random_prediction_rate(sizes: FitSizes, rows: int, repetitions: int) -> FlopReport:
    """`predict_random` on so many rows with uniformly drawn members; only each row's own member counts as useful."""
    ensemble = _ensemble(sizes)
    effective = ensemble.effective(ensemble.initial_state(0, sizes.observation_dim, sizes.action_dim))
    rng = np.random.default_rng(0)
    observation, action = (
        tf.constant(rng.standard_normal((rows, width)), tf.float32)
        for width in (sizes.observation_dim, sizes.action_dim)
    )
    member = tf.constant(rng.integers(0, sizes.models, rows), tf.int32)
    predict = tf.function(ensemble.predict_random, autograph=False)
    gflop = 2 * weights_per_model(sizes) * rows / 1e9
    return compare_with_matmul(lambda: predict(effective, observation, action, member), gflop, repetitions)


def _ensemble(sizes: FitSizes) -> DynamicsEnsemble:
    # A persistency of 1 never stops before the last epoch, so that the work is known.
    return DynamicsEnsemble(
        num_models=sizes.models, hidden_sizes=(sizes.hidden,) * 2, batch_size=sizes.batch_size, persistency=1.0
    )


def _transitions(sizes: FitSizes) -> Transitions:
    rng = np.random.default_rng(0)
    observation = rng.standard_normal((sizes.rows, sizes.observation_dim)).astype(np.float32)
    action = rng.uniform(-1.0, 1.0, (sizes.rows, sizes.action_dim)).astype(np.float32)
    change = 0.1 * np.tanh(observation + action[:, :1]).astype(np.float32)
    return Transitions(observation, action, observation + change, np.zeros(sizes.rows, np.int32))
