"""A meta-step over all shards: adapt every task, then update the meta-parameters (MB-MPO specification, 1.2 and 4).

Shapes: `M` tasks.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from mbmpo.meta_objective import Argument, Evaluation, MetaObjective, RandomKey, joined_terms
from mbmpo.meta_updates import Info, MetaUpdate
from mbmpo.policies import GaussianMLPPolicy, Weights
from mbmpo.processing import explained_variance
from mbmpo.settings import InnerAdaptation
from mbmpo.shard import Adaptation
from metarl.experiment.learner import NonFiniteError, Report
from metarl.sampling.sampler import SamplingSeconds
from metarl.scaling.pool import ShardPool
from metarl.scaling.shard import TaskBatch


def make_objective(policy: GaussianMLPPolicy, meta_update: MetaUpdate, adaptation: InnerAdaptation) -> MetaObjective:
    """The compiled evaluations that a meta-update asks of its shards."""
    return meta_update.make_objective(
        policy,
        inner_lr=adaptation.inner_lr,
        trainable_inner_lr=adaptation.trainable_inner_lr,
        first_order=adaptation.first_order,
    )


class MetaStep:
    """Adaptation and meta-update of M tasks, however many shards hold them.

    Args:
        pool: of `MetaShard`s.
        meta_update: TRPO, PPO or VPG.
    """

    def __init__(self, pool: ShardPool, meta_update: MetaUpdate):
        self.pool = pool
        self._meta_update = meta_update

    def adapt(
        self,
        theta: Weights,
        tasks: TaskBatch,
        seed: int,
        iteration: int,
        phase: str,
        *,
        keep: bool = True,
        report: Report | None = None,
    ) -> list[Adaptation]:
        """Collects and adapts on every shard, in task order; arguments as in `MetaShard.collect`."""
        return self.pool.collect(
            tasks, report=report, parameters=theta, seed=seed, iteration=iteration, phase=phase, keep=keep
        )

    def update(
        self,
        theta: Weights,
        state: Mapping[str, Any],
        adaptations: Sequence[Adaptation],
        report: Report,
        key: RandomKey,
    ) -> tuple[Weights, dict[str, Any], Info]:
        """One meta-update on what `adapt` kept; see `MetaUpdate.update`."""

        def evaluate(what: str, theta: Weights, argument: Argument | None = None) -> Evaluation:
            common = {"key": adaptations[0].key, "parameters": theta, "what": what}
            if argument is None or argument.penalties is None:
                gradient, terms = self.pool.evaluate(**common, argument=argument)
            else:
                own = [{"argument": argument.part(start, stop)} for start, stop in self.pool.ranges()]
                gradient, terms = self.pool.evaluate(own, **common)
            return Evaluation(gradient, joined_terms(terms))

        return self._meta_update.update(theta, state, evaluate, report, key)


def require_finite_steps(what: str, adaptations: Sequence[Adaptation]) -> None:
    """Passes if all that the shards' collectors gathered was finite.

    Raises:
        NonFiniteError: names what was not.
    """
    for adaptation in adaptations:
        if adaptation.account.not_finite is not None:
            raise NonFiniteError(f"not finite: {adaptation.account.not_finite} of {what}")


def adapted_weights(adaptations: Sequence[Adaptation]) -> Weights:
    """The adapted weights of all tasks, [M, ...]."""
    if len(adaptations) == 1:
        return adaptations[0].adapted
    return tf.nest.map_structure(lambda *parts: tf.concat(parts, axis=0), *(part.adapted for part in adaptations))


def slowest(adaptations: Sequence[Adaptation]) -> dict[str, float]:
    """Wall-clock by phase: shards work side by side, so that the slowest is waited for."""
    return {name: max(adaptation.seconds[name] for adaptation in adaptations) for name in adaptations[0].seconds}


def sampling_seconds(adaptations: Sequence[Adaptation], phase: int) -> list[SamplingSeconds]:
    """Where the time of sampling one phase went, per shard; none if it was imagined."""
    return [adaptation.account.seconds[phase] for adaptation in adaptations if adaptation.account.seconds]


def pooled_statistics(adaptations: Sequence[Adaptation], phase: int) -> dict[str, float]:
    """Statistics of one phase over all shards: those of all their paths together, however these are split."""
    parts = [adaptation.statistics[phase] for adaptation in adaptations]
    if len(parts) == 1:
        return parts[0]
    shard = {name: np.array([part[name] for part in parts]) for name in parts[0]}
    paths, steps = shard["num_paths"], shard["num_steps"]
    average, spread = _pooled_moments(shard["average_return"], np.square(shard["std_return"]), paths)
    returns_mean, returns_variance = _pooled_moments(shard["returns_mean"], shard["returns_variance"], steps)
    residual_mean, residual_variance = _pooled_moments(shard["residual_mean"], shard["residual_variance"], steps)
    entropy = float(np.average(shard["entropy"], weights=steps))
    return {
        "average_return": average,
        "std_return": math.sqrt(spread),
        "max_return": float(shard["max_return"].max()),
        "min_return": float(shard["min_return"].min()),
        "num_paths": float(paths.sum()),
        "num_steps": float(steps.sum()),
        "average_discounted_return": float(np.average(shard["average_discounted_return"], weights=paths)),
        "returns_mean": returns_mean,
        "returns_variance": returns_variance,
        "residual_mean": residual_mean,
        "residual_variance": residual_variance,
        "explained_variance": explained_variance(residual_variance, returns_variance),
        "entropy": entropy,
        "perplexity": math.exp(entropy),
    }


def _pooled_moments(means: np.ndarray, variances: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """Mean and population variance of all shards' numbers, from those of each and how many it has."""
    mean = np.average(means, weights=counts)
    return float(mean), float(np.average(variances + np.square(means - mean), weights=counts))
