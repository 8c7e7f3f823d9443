"""Imagination against the matrix product.

Shapes: `M` tasks, `R` rollouts per task, `H` horizon, `E` models, `O` observation, `A` action.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from benchmarks.machine import FlopReport, compare_with_matmul
from mbmpo.dynamics import DynamicsEnsemble
from mbmpo.families.half_cheetah import HalfCheetah
from mbmpo.imagination import Imagination
from mbmpo.policies import GaussianMLPPolicy


class ImaginationSizes(NamedTuple):
    """Sizes of a phase; the defaults are the canonical ones (specification, section 0)."""

    tasks: int = 20
    rollouts: int = 50
    horizon: int = 200
    models: int = 5
    model_hidden: Sequence[int] = (512, 512)
    policy_hidden: Sequence[int] = (32, 32)


SMALL = ImaginationSizes(tasks=10, rollouts=10, horizon=100)
"""The sizes that the original program was timed with."""


def imagination_gflop(sizes: ImaginationSizes, observation_dim: int, action_dim: int) -> float:
    """Useful floating-point operations of one phase, in 1e9: the products of model and policy."""
    model = [observation_dim + action_dim, *sizes.model_hidden, observation_dim]
    policy = [observation_dim, *sizes.policy_hidden, action_dim]
    weights = sum(a * b for widths in (model, policy) for a, b in itertools.pairwise(widths))
    return 2 * weights * sizes.tasks * sizes.rollouts * sizes.horizon / 1e9


def imagination_rate(sizes: ImaginationSizes, repetitions: int = 7) -> FlopReport:
    """One phase on the half-cheetah with untrained models, the draws of resets and noise included."""
    family = HalfCheetah()
    sizes_of_family = family.observation_dim, family.action_dim
    ensemble = DynamicsEnsemble(num_models=sizes.models, hidden_sizes=sizes.model_hidden)
    policy = GaussianMLPPolicy(hidden_sizes=sizes.policy_hidden)
    imagination = Imagination(policy, family, ensemble, sizes.tasks, sizes.rollouts, sizes.horizon)
    weights = {
        name: tf.tile(value[tf.newaxis], [sizes.tasks] + [1] * value.shape.rank)
        for name, value in policy.initial_weights(1, *sizes_of_family).items()
    }
    effective = ensemble.effective(ensemble.initial_state(1, *sizes_of_family))
    return compare_with_matmul(
        lambda: imagination.run(weights, effective, seed=1, iteration=0, phase="benchmark"),
        imagination_gflop(sizes, *sizes_of_family),
        repetitions,
    )
