"""MAESN, reduced to a single latent vector as in the original code ("AdaptSV"): no latent distribution, no prior."""

from collections.abc import Mapping, Sequence
from typing import Any

import gin
import tensorflow as tf

from metarl.experiment import checks
from metarl.experiment.errors import UserError
from metarl.networks.initializers import normc
from metarl.seeding import named_seed
from tesp.methods.base import EncoderInput, Method, Weights


@gin.configurable(module="tesp")
class MAESN(Method):
    """Inner variables: the latent vector z; the policy pi(a | s, z) is shared by all tasks.

    Args:
        hidden_sizes: widths of the policy's tanh layers.
        embedding_dim: D, length of z.
        embedding_coeff: eta, coefficient of mean(z'^2) in the outer loss.
        inner_lr: the rates' initial value.
        inner_lr_bound: the rates are clipped to +- this in the forward pass; None for no bound.
        adaptive_inner_lr: must be True, as in the original.
    """

    name = "MAESN"

    def __init__(
        self,
        *,
        hidden_sizes: Sequence[int] = gin.REQUIRED,
        embedding_dim: int = gin.REQUIRED,
        embedding_coeff: float = gin.REQUIRED,
        inner_lr: float = 1e-3,
        inner_lr_bound: float | None = 0.1,
        adaptive_inner_lr: bool = True,
    ):
        super().__init__(
            hidden_sizes=hidden_sizes,
            inner_lr=inner_lr,
            adaptive_inner_lr=adaptive_inner_lr,
            inner_lr_bound=inner_lr_bound,
            embedding_coeff=embedding_coeff,
        )
        if not self.adaptive_inner_lr:
            raise UserError("MAESN.adaptive_inner_lr must be True: its latent vector moves with learned rates")
        self.context_dim = checks.integer("MAESN.embedding_dim", embedding_dim, minimum=1)

    def initial_variables(self, seed: int, observation_dim: int, action_dim: int) -> tuple[Weights, Weights]:
        """Returns (z with norm 0.01, policy)."""
        z = normc(0.01, named_seed(seed, "z"))((self.context_dim,), "float32")
        return {"z": tf.convert_to_tensor(z)}, self._policy_weights(seed, observation_dim, action_dim)

    def context(self, weights: Mapping[str, tf.Tensor], episodes: EncoderInput | None, plain: bool) -> Any:
        """The adapted latent vector, [M, D]."""
        del episodes, plain
        return weights["z"]
