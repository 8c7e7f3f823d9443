"""TESP: a fast-adapted recurrent task encoder, and a policy shared by all tasks that is conditioned on the embedding.

The variant with an adaptive policy moves the policy's weights as well (TESP specification, sections 1 and 2.2).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import gin
import tensorflow as tf

from metarl.experiment import checks
from metarl.networks.gru import GRUEncoder, encode
from tesp.methods.base import EncoderInput, Method, Weights

ENCODER_ACTION_FEATURES = ("logits", "action")


@gin.configurable(module="tesp")
class TESP(Method):
    """Inner variables: GRU and projection; the policy pi(a | s, h) is shared by all tasks.

    Args:
        hidden_sizes: widths of the policy's tanh layers.
        gru_units: U, width of the encoder's state.
        embedding_dim: D, width of the task embedding h.
        embedding_coeff: eta, coefficient of mean(h^2) in the outer loss.
        inner_lr: the rates' initial value, or the constant.
        inner_lr_bound: the rates are clipped to +- this in the forward pass; None for no bound.
        adaptive_inner_lr: learned rates (default) or one constant.
        encoder_action_feature: what stands for the action in the encoder's input: "logits", the distribution
            recorded when the step was sampled (the original code), or "action", the sampled action (D16).
    """

    name = "TESP"
    uses_encoder = True

    def __init__(
        self,
        *,
        hidden_sizes: Sequence[int] = gin.REQUIRED,
        gru_units: int = 256,
        embedding_dim: int = gin.REQUIRED,
        embedding_coeff: float = gin.REQUIRED,
        inner_lr: float = 1e-3,
        inner_lr_bound: float | None = 0.1,
        adaptive_inner_lr: bool = True,
        encoder_action_feature: str = "logits",
    ):
        super().__init__(
            hidden_sizes=hidden_sizes,
            inner_lr=inner_lr,
            adaptive_inner_lr=adaptive_inner_lr,
            inner_lr_bound=inner_lr_bound,
            embedding_coeff=embedding_coeff,
        )
        self.gru_units = checks.integer(f"{self.name}.gru_units", gru_units, minimum=1)
        self.context_dim = checks.integer(f"{self.name}.embedding_dim", embedding_dim, minimum=1)
        self.encoder_action_feature = checks.choice(
            f"{self.name}.encoder_action_feature", encoder_action_feature, ENCODER_ACTION_FEATURES
        )

    def initial_variables(self, seed: int, observation_dim: int, action_dim: int) -> tuple[Weights, Weights]:
        """Returns (encoder, policy)."""
        encoder = GRUEncoder(self.feature_dim(observation_dim, action_dim), self.gru_units, self.context_dim, seed=seed)
        return encoder.initial_weights(), self._policy_weights(seed, observation_dim, action_dim)

    def context(self, weights: Mapping[str, tf.Tensor], episodes: EncoderInput | None, plain: bool) -> Any:
        """The task embedding h, [M, D]: the mean over the buffered episodes, zero for an empty buffer."""
        if episodes is None:
            raise ValueError("a method with an encoder needs the buffered episodes")
        differentiable = "plain" if plain else "fast"
        return encode(weights, episodes.features, episodes.lengths, differentiable)


@gin.configurable(module="tesp")
class TESPAdaptivePolicy(TESP):
    """As TESP, with the policy among the inner variables; its arguments are TESP's.

    They are repeated because gin binds what the signature of the class itself names.
    """

    name = "TESPAdaptivePolicy"

    def __init__(
        self,
        *,
        hidden_sizes: Sequence[int] = gin.REQUIRED,
        gru_units: int = 256,
        embedding_dim: int = gin.REQUIRED,
        embedding_coeff: float = gin.REQUIRED,
        inner_lr: float = 1e-3,
        inner_lr_bound: float | None = 0.1,
        adaptive_inner_lr: bool = True,
        encoder_action_feature: str = "logits",
    ):
        super().__init__(
            hidden_sizes=hidden_sizes,
            gru_units=gru_units,
            embedding_dim=embedding_dim,
            embedding_coeff=embedding_coeff,
            inner_lr=inner_lr,
            inner_lr_bound=inner_lr_bound,
            adaptive_inner_lr=adaptive_inner_lr,
            encoder_action_feature=encoder_action_feature,
        )

    def initial_variables(self, seed: int, observation_dim: int, action_dim: int) -> tuple[Weights, Weights]:
        """Returns (encoder and policy, nothing)."""
        encoder, policy = super().initial_variables(seed, observation_dim, action_dim)
        return {**encoder, **policy}, {}
