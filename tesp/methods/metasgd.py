"""Meta-SGD: MAML with one learned rate per adapted number."""

from collections.abc import Sequence

import gin

from metarl.experiment.errors import UserError
from tesp.methods.base import Method, Weights


@gin.configurable(module="tesp")
class MetaSGD(Method):
    """Inner variables: the policy; a learned rate for each of its numbers.

    Args:
        hidden_sizes: widths of the policy's tanh layers.
        inner_lr: the rates' initial value.
        inner_lr_bound: the rates are clipped to +- this in the forward pass; None for no bound.
        adaptive_inner_lr: must be True; a constant rate makes it MAML.
    """

    name = "MetaSGD"

    def __init__(
        self,
        *,
        hidden_sizes: Sequence[int] = gin.REQUIRED,
        inner_lr: float = 1e-3,
        inner_lr_bound: float | None = 0.1,
        adaptive_inner_lr: bool = True,
    ):
        super().__init__(
            hidden_sizes=hidden_sizes,
            inner_lr=inner_lr,
            adaptive_inner_lr=adaptive_inner_lr,
            inner_lr_bound=inner_lr_bound,
            embedding_coeff=0.0,
        )
        if not self.adaptive_inner_lr:
            raise UserError("MetaSGD.adaptive_inner_lr must be True: for one constant rate use MAML")

    def initial_variables(self, seed: int, observation_dim: int, action_dim: int) -> tuple[Weights, Weights]:
        """Returns (policy, nothing)."""
        return self._policy_weights(seed, observation_dim, action_dim), {}
