"""A method of one's own in TESP's loop: MAML that adapts the policy's last layer alone (ANIL; Raghu et al., 2020)."""

from collections.abc import Sequence

import gin

from tesp.methods.base import Method, Weights


@gin.configurable(module="examples")
class LastLayerMAML(Method):
    """Inner variables: the last layer; the layers below are shared by all tasks and only meta-learned."""

    name = "LastLayerMAML"

    def __init__(self, *, hidden_sizes: Sequence[int] = gin.REQUIRED, inner_lr: float = 1e-2):
        super().__init__(
            hidden_sizes=hidden_sizes,
            inner_lr=inner_lr,
            adaptive_inner_lr=False,  # one constant rate, as MAML
            inner_lr_bound=None,
            embedding_coeff=0.0,  # there is no context whose size could be punished
        )

    def initial_variables(self, seed: int, observation_dim: int, action_dim: int) -> tuple[Weights, Weights]:
        """Returns (what fast-updates change, what they leave alone)."""
        policy = self._policy_weights(seed, observation_dim, action_dim)
        last = f"mlp{len(self.hidden_sizes)}."
        inner = {name: value for name, value in policy.items() if name.startswith(last)}
        shared = {name: value for name, value in policy.items() if name not in inner}
        return inner, shared
