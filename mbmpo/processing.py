"""From sampled or imagined steps to advantages and logged statistics (MB-MPO specification, sections 1.3 and 5.4).

Time limits count as terminations: nothing is bootstrapped (O-8). Shapes: `M` tasks, `S` steps per task, `B` baseline
features. An episode is a run of valid steps that ends with its `last` step; steps that are not valid do not count,
whatever they hold.
"""

import math
from typing import Any, NamedTuple

import gin
import tensorflow as tf

from mbmpo import distributions
from metarl.experiment import checks
from metarl.returns import linear_baseline
from metarl.returns.advantages import discounted_returns, discounted_suffix_sum, generalized_advantages
from metarl.sampling.steps import Steps

_EPSILON = 1e-8


class Processed(NamedTuple):
    """What processing makes of one batch; float64, meaningless where a step is not valid except `advantage`.

    Attributes:
        advantage: [M, S], 0 on padding.
        returns: [M, S], discounted sum of the rewards still to come in the episode.
        value: [M, S], the baseline's predictions that the advantages used.
        coefficients: [M, B], the baseline fitted on this batch.
    """

    advantage: tf.Tensor
    returns: tf.Tensor
    value: tf.Tensor
    coefficients: tf.Tensor


class Predicted(NamedTuple):
    """What a part of the rows contributes to the processing of all; float64.

    Attributes:
        advantage: [1, S] not standardised.
        gram: [1, B, B] of the baseline's normal equations.
        moment: [1, B, 1] of the same.
        count: number of valid rows.
        total: sum of the advantages.
        least: of the advantages.
    """

    advantage: tf.Tensor
    gram: tf.Tensor
    moment: tf.Tensor
    count: tf.Tensor
    total: tf.Tensor
    least: tf.Tensor


class Scale(NamedTuple):
    """How advantages are standardised: (A - mean) / divisor, and the least one after that."""

    mean: float
    divisor: float
    least: float


@gin.configurable(module="mbmpo")
class Processing:
    """Baseline, advantages and their standardisation. The methods are TensorFlow code, for compiled functions.

    Args:
        gamma: discount.
        lambda_: of the generalised advantages.
        center: standardise the advantages per task: (A - mean) / (std + 1e-8).
        positive: then shift them: A - min + 1e-8.
    """

    def __init__(self, *, gamma: float = 0.99, lambda_: float = 1.0, center: bool = True, positive: bool = False):
        self.gamma = checks.real("Processing.gamma", gamma, 0.0, 1.0)
        self.lambda_ = checks.real("Processing.lambda_", lambda_, 0.0, 1.0)
        self.center = checks.flag("Processing.center", center)
        self.positive = checks.flag("Processing.positive", positive)

    def maml(self, steps: Steps, max_length: int | None = None) -> tf.Tensor:
        """The advantages of `fitted`, [M, S] in the type of the rewards."""
        return tf.cast(self.fitted(steps, max_length).advantage, steps.reward.dtype)

    def fitted(self, steps: Steps, max_length: int | None = None) -> Processed:
        """MAML's order: fit the baseline on these very paths, then predict; every task by itself.

        Args:
            steps: [M, S] structure of tensors.
            max_length: an upper bound of the episodes' lengths; None for S.
        """
        reward, phi, returns = self._prepared(steps, max_length)
        coefficients = linear_baseline.fit(phi, returns, steps.valid, rounded=False)
        return self._finished(steps, reward, phi, returns, coefficients, max_length)._replace(coefficients=coefficients)

    def sequential(
        self, steps: Steps, coefficients: tf.Tensor | None, max_length: int | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Advantages in the type of the rewards, and the new coefficients, of `predicted_then_fitted`."""
        processed = self.predicted_then_fitted(steps, coefficients, max_length)
        return tf.cast(processed.advantage, steps.reward.dtype), processed.coefficients

    def predicted_then_fitted(
        self, steps: Steps, coefficients: tf.Tensor | None, max_length: int | None = None
    ) -> Processed:
        """The order of TRPO and ME-TRPO: predict with the fit of the batch before, then fit anew.

        Args:
            steps: [M, S] structure of tensors; one "task" holds all paths (`pooled`).
            coefficients: [M, B] of the batch before; None for the first batch, which predicts zeros.
            max_length: an upper bound of the episodes' lengths; None for S.
        """
        reward, phi, returns = self._prepared(steps, max_length)
        before = tf.zeros([phi.shape[0], phi.shape[2]], phi.dtype) if coefficients is None else coefficients
        processed = self._finished(steps, reward, phi, returns, before, max_length)
        return processed._replace(coefficients=linear_baseline.fit(phi, returns, steps.valid, rounded=False))

    def predicted(self, steps: Steps, coefficients: tf.Tensor, max_length: int | None = None) -> Predicted:
        """The first half of `predicted_then_fitted`, for steps of which others hold the rest.

        Arguments as there; coefficients are not None.
        """
        reward, phi, returns = self._prepared(steps, max_length)
        advantage = self._unscaled(steps, reward, phi, coefficients, max_length)
        gram, moment = linear_baseline.normal_equations(phi, returns, steps.valid, rounded=False)
        infinity = tf.constant(float("inf"), advantage.dtype)
        return Predicted(
            advantage,
            gram,
            moment,
            tf.reduce_sum(tf.cast(steps.valid, advantage.dtype)),
            tf.reduce_sum(_counted(advantage, steps.valid), axis=1)[0],
            tf.reduce_min(tf.where(steps.valid, advantage, infinity)),
        )

    def scaled(self, advantage: tf.Tensor, valid: tf.Tensor, scale: Scale) -> tf.Tensor:
        """The second half: standardised and shifted as the settings say; [M, S]."""
        advantage = (advantage - scale.mean) / scale.divisor
        if self.positive:
            advantage = advantage - scale.least + _EPSILON
        return _counted(advantage, valid)

    def scale(self, mean: float, variance: float, least: float) -> Scale:
        """What `scaled` needs, from moments over all rows and the least advantage."""
        if not self.center:
            return Scale(0.0, 1.0, least)
        divisor = math.sqrt(variance) + _EPSILON
        return Scale(mean, divisor, (least - mean) / divisor)

    def _prepared(self, steps: Steps, max_length: int | None) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        reward = _rewards(steps)
        phi = linear_baseline.features(tf.cast(steps.observation, tf.float64), steps.time)
        returns = discounted_returns(reward, steps.last, self.gamma, max_length or reward.shape[1])
        return reward, phi, returns

    def _unscaled(
        self, steps: Steps, reward: tf.Tensor, phi: tf.Tensor, coefficients: tf.Tensor, max_length: int | None
    ) -> tf.Tensor:
        value = _value(steps, phi, coefficients)
        length = max_length or reward.shape[1]
        return generalized_advantages(reward, value, steps.last, self.gamma, self.lambda_, length)

    def _finished(
        self,
        steps: Steps,
        reward: tf.Tensor,
        phi: tf.Tensor,
        returns: tf.Tensor,
        coefficients: tf.Tensor,
        max_length: int | None,
    ) -> Processed:
        value = _value(steps, phi, coefficients)
        advantage = self._unscaled(steps, reward, phi, coefficients, max_length)
        if self.center:
            mean, variance = _moments(advantage, steps.valid)
            advantage = (advantage - mean) / (tf.sqrt(variance) + _EPSILON)
        if self.positive:
            largest = tf.constant(float("inf"), advantage.dtype)
            least = tf.reduce_min(tf.where(steps.valid, advantage, largest), axis=1, keepdims=True)
            advantage = advantage - least + _EPSILON
        return Processed(tf.where(steps.valid, advantage, tf.zeros_like(advantage)), returns, value, coefficients)


def _value(steps: Steps, phi: tf.Tensor, coefficients: tf.Tensor) -> tf.Tensor:
    # What padding holds must not reach an episode, not even multiplied by zero.
    return _counted(linear_baseline.predict(phi, coefficients), steps.valid)


def _counted(x: tf.Tensor, valid: tf.Tensor) -> tf.Tensor:
    return tf.where(valid, x, tf.zeros_like(x))


def pooled(steps: Steps) -> Steps:
    """All paths as those of one task: [M, S] -> [1, M S]."""
    return Steps(*(tf.reshape(x, [1, x.shape[0] * x.shape[1], *x.shape[2:]]) for x in steps))


def path_statistics(steps: Steps, processed: Processed | None = None) -> dict[str, tf.Tensor]:
    """The logged columns of section 1.3 over all tasks' paths together, as scalars.

    Args:
        steps: [M, S] structure of tensors.
        processed: of the same steps, for the columns that need it; None leaves them out.

    Returns:
        average_return, std_return, max_return, min_return, num_paths; with `processed` also average_discounted_return,
        explained_variance, entropy (nats), perplexity, and what these take to be put together from parts of the paths:
        num_steps, and over the steps mean and population variance of R ("returns_") and of R - V ("residual_").
    """
    reward, valid = _rewards(steps), steps.valid
    before = tf.pad(tf.logical_and(valid, tf.logical_not(steps.last))[:, :-1], [[0, 0], [1, 0]])
    start = tf.logical_and(valid, tf.logical_not(before))
    total = discounted_suffix_sum(reward, steps.last, 1.0, reward.shape[1])
    count = tf.reduce_sum(tf.cast(start, tf.float64))
    infinity = tf.constant(float("inf"), tf.float64)

    def mean(x: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(tf.where(start, x, tf.zeros_like(x))) / count

    average = mean(total)
    result = {
        "average_return": average,
        "std_return": tf.sqrt(mean(tf.square(total - average))),
        "max_return": tf.reduce_max(tf.where(start, total, -infinity)),
        "min_return": tf.reduce_min(tf.where(start, total, infinity)),
        "num_paths": count,
    }
    if processed is None:
        return result
    everything = tf.reshape(valid, [1, -1])
    residual_mean, unexplained = _moments(tf.reshape(processed.returns - processed.value, [1, -1]), everything)
    returns_mean, variance = _moments(tf.reshape(processed.returns, [1, -1]), everything)
    entropies = tf.cast(distributions.entropy(steps.logits), tf.float64)
    entropy, _ = _moments(tf.reshape(entropies, [1, -1]), everything)
    return result | {
        "average_discounted_return": mean(processed.returns),
        "explained_variance": explained_variance(unexplained[0, 0], variance[0, 0]),
        "entropy": entropy[0, 0],
        "perplexity": tf.exp(entropy[0, 0]),
        "num_steps": tf.reduce_sum(tf.cast(valid, tf.float64)),
        "returns_mean": returns_mean[0, 0],
        "returns_variance": variance[0, 0],
        "residual_mean": residual_mean[0, 0],
        "residual_variance": unexplained[0, 0],
    }


def explained_variance(residual: Any, returns: Any) -> Any:
    """1 - var(R - V) / (var(R) + 1e-8), from the two variances, tensors or numbers."""
    return 1.0 - residual / (returns + _EPSILON)


def _rewards(steps: Steps) -> tf.Tensor:
    reward = tf.cast(steps.reward, tf.float64)
    return tf.where(steps.valid, reward, tf.zeros_like(reward))


def _moments(x: tf.Tensor, valid: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Mean and population variance over the valid steps of every task, [M, 1] each."""
    count = tf.reduce_sum(tf.cast(valid, x.dtype), axis=1, keepdims=True)
    mean = tf.reduce_sum(tf.where(valid, x, tf.zeros_like(x)), axis=1, keepdims=True) / count
    deviation = tf.where(valid, x - mean, tf.zeros_like(x))
    return mean, tf.reduce_sum(tf.square(deviation), axis=1, keepdims=True) / count
