"""What a method is (TESP specification, section 1).

All methods run through the same loop. A method says which variables exist, which of them are fast-adapted (theta,
"inner"), which are only meta-learned (phi, "shared"), whether every inner number has a learned rate (alpha, "rates"),
and what context, if any, is concatenated to the observation: a latent vector or the embedding of the task encoder.

Shapes: `M` tasks, `S` steps per task, `O` observation, `A` action, `D` context, `B` buffered episodes, `H` horizon.
"""

import abc
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from metarl.experiment import checks
from metarl.networks.mlp import MLP, mlp, mlp_task_by_task

Weights = dict[str, tf.Tensor]


class MetaParameters(NamedTuple):
    """What the outer optimiser trains; also the form of its gradients.

    Attributes:
        inner: theta by name, adapted per task.
        shared: phi by name, the same for all tasks.
        rates: alpha by name, shaped like theta; empty when the rate is a constant.
    """

    inner: Weights
    shared: Weights
    rates: Weights


class EncoderInput(NamedTuple):
    """Buffered episodes as the task encoder reads them.

    Attributes:
        features: [M, B, H, F] float32, zeros behind each episode's end.
        lengths: [M, B] int32, 0 where the buffer holds no episode.
    """

    features: Any
    lengths: Any


class Method(abc.ABC):
    """One way to adapt, see the module's docstring.

    Args:
        hidden_sizes: widths of the policy's tanh layers.
        inner_lr: initial (or constant) learning rate of a fast-update.
        adaptive_inner_lr: one learned rate per inner number instead of one constant.
        inner_lr_bound: rates are clipped to +- this in the forward pass; None for no bound.
        embedding_coeff: eta, coefficient of the mean of squares of the context in the outer loss (section 2.4).

    Attributes:
        name: how the method is called in logs and file names.
        context_dim: D, 0 for methods without context.
        uses_encoder: whether the context is an embedding of buffered episodes.
        gru_units: U of the encoder, 0 without.
        encoder_action_feature: what stands for the action in the encoder's input, "logits" or "action".
    """

    name: str
    context_dim: int = 0
    uses_encoder: bool = False
    gru_units: int = 0
    encoder_action_feature: str = "logits"

    def __init__(
        self,
        *,
        hidden_sizes: Sequence[int],
        inner_lr: float,
        adaptive_inner_lr: bool,
        inner_lr_bound: float | None,
        embedding_coeff: float,
    ):
        self.hidden_sizes = checks.integers(f"{self.name}.hidden_sizes", hidden_sizes, minimum=1)
        self.inner_lr = checks.real(f"{self.name}.inner_lr", inner_lr, minimum=0.0)
        self.adaptive_inner_lr = checks.flag(f"{self.name}.adaptive_inner_lr", adaptive_inner_lr)
        if inner_lr_bound is not None:
            inner_lr_bound = checks.positive(f"{self.name}.inner_lr_bound", inner_lr_bound)
        self.inner_lr_bound = inner_lr_bound
        self.embedding_coeff = checks.real(f"{self.name}.embedding_coeff", embedding_coeff, minimum=0.0)

    @abc.abstractmethod
    def initial_variables(self, seed: int, observation_dim: int, action_dim: int) -> tuple[Weights, Weights]:
        """Returns the initial (inner, shared) weights."""

    def context(self, weights: Mapping[str, tf.Tensor], episodes: EncoderInput | None, plain: bool) -> Any:
        """The policy's context from adapted weights, [M, D], or None.

        Args:
            weights: adapted per-task weights and shared weights, by name.
            episodes: the buffer, for methods that use the encoder.
            plain: use operations that can be differentiated twice.
        """
        del weights, episodes, plain
        return None

    def feature_dim(self, observation_dim: int, action_dim: int) -> int:
        """Width of the encoder's input per step: observation, logits or action, reward; 0 without an encoder."""
        if not self.uses_encoder:
            return 0
        return observation_dim + action_dim * (2 if self.encoder_action_feature == "logits" else 1) + 1

    def initial_parameters(self, seed: int, observation_dim: int, action_dim: int) -> MetaParameters:
        """Returns the meta-parameters before training."""
        inner, shared = self.initial_variables(seed, observation_dim, action_dim)
        rates = {}
        if self.adaptive_inner_lr:
            rates = {name: tf.fill(value.shape, tf.constant(self.inner_lr)) for name, value in inner.items()}
        return MetaParameters(inner, shared, rates)

    def effective_rates(self, parameters: MetaParameters) -> Weights:
        """The rates of the forward pass: clip(alpha, -bound, bound), or the constant.

        The derivative of the clip is 1 inside and on the boundary and 0 outside.
        """
        if not self.adaptive_inner_lr:
            return {name: tf.constant(self.inner_lr, value.dtype) for name, value in parameters.inner.items()}
        if self.inner_lr_bound is None:
            return dict(parameters.rates)
        bound = self.inner_lr_bound
        return {name: tf.clip_by_value(rate, -bound, bound) for name, rate in parameters.rates.items()}

    def adapted_params(self, parameters: MetaParameters, accumulated: Weights) -> Weights:
        """Theta' = theta - rates * G per task (section 3.2).

        Args:
            parameters: meta-parameters, without a task axis.
            accumulated: G by name, [M, ...]: the sum of the clipped inner gradients.

        Returns:
            theta' by name, [M, ...].
        """
        rates = self.effective_rates(parameters)
        return {name: theta - rates[name] * accumulated[name] for name, theta in parameters.inner.items()}

    def logits(
        self, weights: Mapping[str, tf.Tensor], observation: tf.Tensor, context: Any, task_by_task: bool = True
    ) -> tf.Tensor:
        """Distribution parameters of the policy.

        Args:
            weights: adapted per-task weights and shared weights, by name.
            observation: [M, S, O].
            context: [M, D] or None.
            task_by_task: build one subgraph per task, which is faster for whole batches and slower for one tick.

        Returns:
            [M, S, 2A].
        """
        return (mlp_task_by_task if task_by_task else mlp)(weights, observation, context)

    def _policy_weights(self, seed: int, observation_dim: int, action_dim: int) -> Weights:
        layer = MLP(observation_dim + self.context_dim, self.hidden_sizes, 2 * action_dim, seed=seed)
        return layer.initial_weights()
