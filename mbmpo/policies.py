"""The Gaussian policy with a free log-std (MB-MPO specification, section 3.1).

Shapes: `M` tasks, `S` steps per task, `R` rows per task, `O` observation, `A` action.
"""

import itertools
import math
from collections.abc import Mapping, Sequence

import gin
import numpy as np
import tensorflow as tf

from metarl.experiment import checks
from metarl.experiment.errors import UserError
from metarl.networks.initializers import glorot_uniform_full
from metarl.networks.mlp import mlp
from metarl.policies import gaussian, host
from metarl.seeding import named_seed

Weights = dict[str, tf.Tensor]


@gin.configurable(module="mbmpo")
class GaussianMLPPolicy:
    """Mean: tanh layers and a linear output; log-std: one free vector. Nothing is normalised, squashed or clipped.

    Args:
        hidden_sizes: widths of the tanh layers.
        init_std: standard deviation before training.
        min_std: floor of the standard deviation; below it the gradient vanishes.
        std_parametrization: what the vector holds: "log" std, or "softplus": std = log(1 + exp(p)).
        learn_std: whether the vector is adapted and trained.
    """

    def __init__(
        self,
        *,
        hidden_sizes: Sequence[int] = (32, 32),
        init_std: float = 1.0,
        min_std: float = 1e-6,
        std_parametrization: str = "log",
        learn_std: bool = True,
    ):
        name = "GaussianMLPPolicy"
        self.hidden_sizes = checks.integers(f"{name}.hidden_sizes", hidden_sizes, minimum=1)
        self.init_std = checks.real(f"{name}.init_std", init_std, minimum=0.0)
        self.min_std = checks.real(f"{name}.min_std", min_std, minimum=0.0)
        if not 0.0 < self.min_std <= self.init_std:
            raise UserError(f"{name}.init_std must be at least min_std, and min_std above 0; got {init_std}, {min_std}")
        self.std_parametrization = checks.choice(
            f"{name}.std_parametrization", std_parametrization, ("log", "softplus")
        )
        self.learn_std = checks.flag(f"{name}.learn_std", learn_std)

    def initial_weights(self, seed: int, observation_dim: int, action_dim: int) -> Weights:
        """Weights before training, a function of the seed.

        Args:
            seed: of the Xavier-uniform kernels; biases are zero.
            observation_dim: O.
            action_dim: A.

        Returns:
            "mlp0.kernel", "mlp0.bias", ..., "log_std" [A], float32.
        """
        widths = [observation_dim, *self.hidden_sizes, action_dim]
        weights: Weights = {}
        for i, shape in enumerate(itertools.pairwise(widths)):
            kernel = glorot_uniform_full(named_seed(seed, f"mlp{i}.kernel"))(shape)
            weights[f"mlp{i}.kernel"] = tf.convert_to_tensor(kernel)
            weights[f"mlp{i}.bias"] = tf.zeros([shape[1]])
        weights["log_std"] = tf.fill([action_dim], tf.constant(self._parameter(self.init_std), tf.float32))
        return weights

    def with_std(self, weights: Mapping[str, tf.Tensor], std: float) -> Weights:
        """The same weights with another standard deviation in every dimension (`reset_policy_std`, section 1.2)."""
        value = tf.constant(self._parameter(max(std, self.min_std)), tf.float32)
        return {**weights, "log_std": tf.fill(weights["log_std"].shape, value)}

    def log_std(self, parameter: tf.Tensor) -> tf.Tensor:
        """The log-std that the free vector stands for, floored; elementwise, any shape."""
        floored, _ = self._floored(tf.convert_to_tensor(parameter))
        return floored if self.std_parametrization == "log" else tf.math.log(tf.math.softplus(floored))

    def log_std_derivatives(self, parameter: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """First and second derivative of `log_std`, elementwise: 0 below the floor and where it is not learned."""
        floored, free = self._floored(tf.convert_to_tensor(parameter))
        if self.std_parametrization == "log":
            return free, tf.zeros_like(free)
        slope = tf.sigmoid(floored)
        relative = slope / tf.math.softplus(floored)
        return free * relative, free * relative * (1.0 - slope - relative)

    def logits(self, weights: Mapping[str, tf.Tensor], observation: tf.Tensor) -> tf.Tensor:
        """Distribution parameters of every row.

        Args:
            weights: shared, or with a leading M.
            observation: [M, S, O].

        Returns:
            [M, S, 2A]: mean, then log-std.
        """
        mean = mlp(weights, observation)
        log_std = self.log_std(weights["log_std"])
        if log_std.shape.rank == 2:
            log_std = log_std[:, tf.newaxis]
        return tf.concat([mean, tf.broadcast_to(log_std, tf.shape(mean))], axis=-1)

    def act(self, weights: Mapping[str, tf.Tensor], observation: tf.Tensor, standard_normal: tf.Tensor) -> tf.Tensor:
        """One tick for the sampler or for imagination.

        Args:
            weights: shared, or with a leading m.
            observation: [m, R, O].
            standard_normal: [m, R, A].

        Returns:
            [m, R, 3A]: mean, log-std and the sampled action.
        """
        logits = self.logits(weights, observation)
        return tf.concat([logits, gaussian.sample(logits, standard_normal)], axis=-1)

    def host_act(self, weights: Mapping[str, np.ndarray]) -> host.HostPolicy:
        """`act` in NumPy for few rows: weights as arrays -> a function of observation and standard_normal."""
        output = len(self.hidden_sizes)
        kernel, bias = weights[f"mlp{output}.kernel"], weights[f"mlp{output}.bias"]
        log_std = self.log_std(tf.convert_to_tensor(weights["log_std"])).numpy()
        extended = {
            **weights,
            f"mlp{output}.kernel": np.concatenate([kernel, np.zeros_like(kernel)], axis=-1),
            f"mlp{output}.bias": np.concatenate([bias, log_std], axis=-1),
        }
        return host.gaussian_mlp(extended)

    def _floored(self, parameter: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The vector not below its floor, and 1 where it may move, 0 elsewhere."""
        if not self.learn_std:
            parameter = tf.stop_gradient(parameter)
        floor = tf.constant(self._parameter(self.min_std), parameter.dtype)
        above = parameter >= floor
        free = tf.cast(above, parameter.dtype) if self.learn_std else tf.zeros_like(parameter)
        return tf.where(above, parameter, floor), free

    def _parameter(self, std: float) -> float:
        """The entry of the free vector that stands for a standard deviation."""
        return math.log(std) if self.std_parametrization == "log" else math.log(math.expm1(std))
