"""Statistics that put observations, actions and changes on one scale (MB-MPO specification, section 2).

Shapes: `N` buffer rows, `O` observation, `A` action.
"""

from typing import NamedTuple, Protocol

import numpy as np
import tensorflow as tf

EPSILON = 1e-10


class HasTransitions(Protocol):
    """Rows to learn from; `mbmpo.transitions.Transitions` is one."""

    @property
    def observation(self) -> np.ndarray:
        """[N, O]."""

    @property
    def action(self) -> np.ndarray:
        """[N, A]."""

    @property
    def next_observation(self) -> np.ndarray:
        """[N, O]."""


class Normalisation(NamedTuple):
    """Means and population standard deviations, float64: of observations [O], actions [A] and changes o' - o [O]."""

    observation_mean: tf.Tensor
    observation_std: tf.Tensor
    action_mean: tf.Tensor
    action_std: tf.Tensor
    delta_mean: tf.Tensor
    delta_std: tf.Tensor


def identity(observation_dim: int, action_dim: int) -> Normalisation:
    """Statistics that change nothing."""
    widths = (observation_dim, action_dim, observation_dim)
    pairs = [(tf.zeros([width], tf.float64), tf.ones([width], tf.float64)) for width in widths]
    return Normalisation(*(value for pair in pairs for value in pair))


def of_transitions(data: HasTransitions) -> Normalisation:
    """Statistics over all rows, training and validation alike (O-22)."""
    parts = (data.observation, data.action, _delta(data))
    return Normalisation(*(value for part in parts for value in _mean_and_std(part)))


def training_data(normalisation: Normalisation, data: HasTransitions) -> tuple[np.ndarray, np.ndarray]:
    """Inputs [N, O + A] and targets [N, O], normalised in float64 and rounded to float32."""
    n = [np.asarray(value) for value in normalisation]
    x = [_normalised(data.observation, n[0], n[1]), _normalised(data.action, n[2], n[3])]
    return np.concatenate(x, axis=1).astype(np.float32), _normalised(_delta(data), n[4], n[5]).astype(np.float32)


def _delta(data: HasTransitions) -> np.ndarray:
    return np.asarray(data.next_observation, np.float64) - np.asarray(data.observation, np.float64)


def _mean_and_std(x: np.ndarray) -> tuple[tf.Tensor, tf.Tensor]:
    x = np.asarray(x, np.float64)
    return tf.constant(x.mean(axis=0)), tf.constant(x.std(axis=0))


def _normalised(x: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    return (np.asarray(x, np.float64) - mean) / (std + EPSILON)
