"""Gaussian MLP policies in NumPy, for the few rows of a small sampling round.

A call into TensorFlow costs several times the arithmetic of a few rows. The functions equal `metarl.networks.mlp.mlp`
followed by `metarl.policies.gaussian.sample` up to rounding. Shapes: `M` tasks, `R` rows per task, `O` observation,
`A` action, `C` context.
"""

from collections.abc import Callable, Mapping

import numpy as np

# Observations [M, R, O] and standard normal numbers [M, R, A] -> [M, R, 3A]: mean, log_std and sampled action.
HostPolicy = Callable[[np.ndarray, np.ndarray], np.ndarray]


def gaussian_mlp(weights: Mapping[str, np.ndarray], context: np.ndarray | None = None, name: str = "mlp") -> HostPolicy:
    """Prepares a policy with fixed weights for many calls.

    Args:
        weights: `<name><i>.kernel` and `<name><i>.bias`, shared or per task, float32; other entries are ignored.
        context: [M, C], numbers concatenated behind every observation of the task, or None for none.
        name: prefix of the layers' names.
    """
    layers: list[tuple[np.ndarray, np.ndarray]] = []
    while f"{name}{len(layers)}.kernel" in weights:
        kernel, bias = weights[f"{name}{len(layers)}.kernel"], weights[f"{name}{len(layers)}.bias"]
        bias = bias[..., np.newaxis, :]
        if not layers and context is not None:
            split = kernel.shape[-2] - context.shape[-1]
            bias = bias + context[:, np.newaxis, :] @ kernel[..., split:, :]
            kernel = np.ascontiguousarray(kernel[..., :split, :])
        layers.append((kernel, bias))
    *hidden, (last_kernel, last_bias) = layers

    def policy(observation: np.ndarray, standard_normal: np.ndarray) -> np.ndarray:
        x = observation
        for kernel, bias in hidden:
            x = x @ kernel
            x += bias
            np.tanh(x, out=x)
        logits = x @ last_kernel
        logits += last_bias
        action_dim = standard_normal.shape[-1]
        action = np.exp(logits[..., action_dim:])
        action *= standard_normal
        action += logits[..., :action_dim]
        return np.concatenate((logits, action), axis=-1)

    return policy
