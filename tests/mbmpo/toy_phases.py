"""Small phases for tests of adaptation and meta-updates: tasks of different numbers of rows, recorded nearby."""

import numpy as np
import tensorflow as tf

from mbmpo.meta_objective import Evaluation, joined_terms
from mbmpo.objectives import MetaData
from mbmpo.policies import GaussianMLPPolicy
from mbmpo.surrogates import Phase
from metarl.scaling.pool import summed

O_DIM, A_DIM = 3, 2


def toy_policy(**kwargs):
    return GaussianMLPPolicy(hidden_sizes=(6, 5), **kwargs)


def toy_weights(policy, seed=0):
    rng = np.random.default_rng(seed)
    weights = policy.initial_weights(seed, O_DIM, A_DIM)
    return {
        name: value + tf.constant(0.1 * rng.normal(size=value.shape), tf.float32) for name, value in weights.items()
    }


def toy_phase(policy, weights, counts=(12, 9, 15), seed=0, shift=0.05, capacity=None):
    """Rows sampled by `weights` (shared or per task), recorded with a distribution `shift` away."""
    rng = np.random.default_rng(seed)
    S = capacity or max(counts) + 2
    M = len(counts)
    observation = rng.normal(size=(M, S, O_DIM))
    logits = policy.logits(weights, tf.constant(observation, tf.float32)).numpy()
    logits = logits + shift * rng.normal(size=logits.shape)
    action = logits[..., :A_DIM] + np.exp(logits[..., A_DIM:]) * rng.normal(size=(M, S, A_DIM))
    valid = np.arange(S) < np.array(counts)[:, None]
    mask = valid[..., None]
    return Phase(
        tf.constant(observation * mask, tf.float32),
        tf.constant(action * mask, tf.float32),
        tf.constant(logits * mask, tf.float32),
        tf.constant(rng.normal(size=(M, S)) * valid, tf.float32),
        tf.constant(valid),
    )


def toy_data(policy, weights, inner_steps=1, counts=(12, 9, 15), shift=0.05, seed=0):
    pre = tuple(toy_phase(policy, weights, counts, seed + 10 * j, shift) for j in range(inner_steps))
    return MetaData(pre, toy_phase(policy, weights, counts[::-1], seed + 99, shift, capacity=max(counts) + 2))


def combined(parts):
    """The evaluations of several shards together, as a meta-step combines them."""
    return Evaluation(summed([part.gradient for part in parts]), joined_terms([part.terms for part in parts]))
