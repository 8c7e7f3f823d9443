"""MAML: the whole policy is adapted with one constant rate."""

from collections.abc import Sequence

import gin

from metarl.experiment.errors import UserError
from tesp.methods.base import Method, Weights


@gin.configurable(module="tesp")
class MAML(Method):
    """Inner variables: the policy. First order, as the code that produced the results.

    Args:
        hidden_sizes: widths of the policy's tanh layers.
        inner_lr: the constant rate.
        adaptive_inner_lr: must be False; learned rates make it Meta-SGD.
    """

    name = "MAML"

    def __init__(
        self, *, hidden_sizes: Sequence[int] = gin.REQUIRED, inner_lr: float = 1e-3, adaptive_inner_lr: bool = False
    ):
        super().__init__(
            hidden_sizes=hidden_sizes,
            inner_lr=inner_lr,
            adaptive_inner_lr=adaptive_inner_lr,
            inner_lr_bound=None,
            embedding_coeff=0.0,
        )
        if self.adaptive_inner_lr:
            raise UserError(
                "MAML.adaptive_inner_lr must be False: MAML has one constant rate; for learned ones use MetaSGD"
            )

    def initial_variables(self, seed: int, observation_dim: int, action_dim: int) -> tuple[Weights, Weights]:
        """Returns (policy, nothing)."""
        return self._policy_weights(seed, observation_dim, action_dim), {}
