"""Trust-region steps: conjugate gradient, Hessian-vector products and line search (MB-MPO specification, section 4.1).

Host loops that receive evaluations as functions: they do not know over how many shards the data are spread. Parameters
are any nest of float32 tensors; vectors are flat float32 arrays in the nest's flattening order.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

HVP_KINDS = ("fd_eps_one", "fd", "exact")
# Length of the clean finite difference's perturbation, relative to the parameters': about the cube root of float32's
# precision, where rounding and curvature errors of a symmetric difference balance.
_RELATIVE_STEP = 5e-3

Product = Callable[[np.ndarray], np.ndarray]


class TrustRegion(NamedTuple):
    """Constants of a step.

    Attributes:
        step_size: delta, the largest mean KL, above 0.
        cg_iterations: of the conjugate gradient.
        residual_tol: the squared residual at which it stops.
        backtrack_ratio: factor between two candidates of the line search.
        max_backtracks: number of candidates.
    """

    step_size: float = 0.01
    cg_iterations: int = 10
    residual_tol: float = 1e-10
    backtrack_ratio: float = 0.8
    max_backtracks: int = 15


class StepInfo(NamedTuple):
    """What a trust-region step did.

    Attributes:
        loss_before: surrogate at the start.
        loss_after: at the parameters that are left.
        kl_before: constraint at the start.
        kl_after: at the parameters that are left.
        backtrack_index: 0-based index of the last candidate tried.
        rejected: whether the parameters were restored.
        scale: factor of the conjugate gradient's direction in the last candidate.
        limit_ratio: kl_after / step_size.
        gradient_norm: Euclidean.
        direction: conjugate gradient's solution, flat.
    """

    loss_before: float
    loss_after: float
    kl_before: float
    kl_after: float
    backtrack_index: int
    rejected: bool
    scale: float
    limit_ratio: float
    gradient_norm: float
    direction: np.ndarray

    def scalars(self) -> dict[str, float]:
        """The scalars by name, for logs."""
        return {name: float(value) for name, value in self._asdict().items() if name != "direction"}


def flatten(nest: Any) -> np.ndarray:
    """All entries of a nest as one float32 vector."""
    return np.concatenate([np.asarray(leaf, np.float32).reshape(-1) for leaf in tf.nest.flatten(nest)])


def unflatten(vector: np.ndarray, like: Any) -> Any:
    """The nest of tensors, shaped like `like`, that a vector holds."""
    leaves, start = [], 0
    for leaf in tf.nest.flatten(like):
        size = math.prod(leaf.shape)
        leaves.append(tf.constant(vector[start : start + size].reshape(leaf.shape), tf.float32))
        start += size
    return tf.nest.pack_sequence_as(like, leaves)


def conjugate_gradient(
    product: Product, g: np.ndarray, iterations: int = 10, residual_tol: float = 1e-10
) -> np.ndarray:
    """Approximate solution x of H x = g, starting at zero.

    Args:
        product: v -> H v, H symmetric and positive definite.
        g: right-hand side.
        iterations: at most so many products.
        residual_tol: stop when the residual's squared norm is below this; one product is made in any case.
    """
    x = np.zeros_like(g)
    residual = g.copy()
    direction = g.copy()
    squared = residual.dot(residual)
    if squared == 0.0:
        return x
    for _ in range(iterations):
        z = product(direction)
        step = squared / direction.dot(z)
        x += step * direction
        residual -= step * z
        squared, before = residual.dot(residual), squared
        direction = residual + squared / before * direction
        if squared < residual_tol:
            break
    return x


def finite_difference_eps(kind: str, parameters: np.ndarray, vector: np.ndarray) -> float:
    """Step eps of [grad KL(theta + eps v) - grad KL(theta - eps v)] / (2 eps).

    Args:
        kind: "fd_eps_one": 1 / (||theta|| + 1e-8), as the original (O-3); v is not normalised. "fd": such that eps v is
            5e-3 as long as theta (as 1 if theta is shorter).
        parameters: theta, flat.
        vector: v, flat.
    """
    norm = float(np.linalg.norm(parameters))
    if kind == "fd_eps_one":
        return 1.0 / (norm + 1e-8)
    return _RELATIVE_STEP * max(norm, 1.0) / (float(np.linalg.norm(vector)) + 1e-8)


def hessian_product(
    kind: str,
    theta: Any,
    kl_gradient: Callable[[Any], Any],
    exact_product: Callable[[Any, Any], Any] | None,
    damping: float,
    kl_difference: Callable[[Any, Any], Any] | None = None,
) -> Product:
    """The function v -> (Hessian of the mean KL at theta) v + damping v.

    Args:
        kind: "fd_eps_one", "fd" (symmetric differences of the gradient) or "exact".
        theta: nest of tensors.
        kl_gradient: theta -> gradient of the mean KL, a nest.
        exact_product: (theta, nest v) -> the product; needed for "exact" only.
        damping: coefficient of v.
        kl_difference: (theta, nest u) -> `kl_gradient` at theta + u minus that at theta - u, where one call gives both.
    """
    start = flatten(theta)

    def differences(vector: np.ndarray) -> np.ndarray:
        eps = np.float32(finite_difference_eps(kind, start, vector))
        if kl_difference is not None:
            difference = flatten(kl_difference(theta, unflatten(eps * vector, theta)))
            return difference / (2 * eps) + np.float32(damping) * vector
        above = flatten(kl_gradient(unflatten(start + eps * vector, theta)))
        below = flatten(kl_gradient(unflatten(start - eps * vector, theta)))
        return (above - below) / (2 * eps) + np.float32(damping) * vector

    def exact(vector: np.ndarray) -> np.ndarray:
        if exact_product is None:
            raise ValueError("the exact product needs exact_product")
        return flatten(exact_product(theta, unflatten(vector, theta))) + np.float32(damping) * vector

    return exact if kind == "exact" else differences


def trust_region_step(
    theta: Any,
    gradient: Any,
    loss_before: float,
    kl_before: float,
    product: Product,
    loss_and_kl: Callable[[Any], tuple[float, float]],
    settings: TrustRegion,
    report: Callable[[str], None] | None = None,
) -> tuple[Any, StepInfo]:
    """One step: scaled conjugate-gradient direction, backtracking, rejection.

    The first candidate theta - 0.8^j sqrt(2 delta / (x'Hx + 1e-8)) x with a lower loss and KL <= delta is taken. What
    the search leaves is rejected, and theta restored, if its loss or KL is not a number, its loss is not lower, or its
    KL >= delta (section 4.1).

    Args:
        theta: nest of tensors.
        gradient: of the loss, a nest.
        loss_before: loss at theta.
        kl_before: constraint at theta.
        product: Hessian of the mean KL, see `hessian_product`.
        loss_and_kl: theta -> (loss, mean KL).
        settings: constants.
        report: told what is being computed.

    Returns:
        (theta to go on with, info).
    """
    say = report or (lambda _: None)
    start, g = flatten(theta), flatten(gradient)
    say("conjugate gradient")
    x = conjugate_gradient(product, g, settings.cg_iterations, settings.residual_tol)
    with np.errstate(invalid="ignore"):
        scale = float(np.sqrt(2.0 * settings.step_size / (x.dot(product(x)) + 1e-8)))
    if math.isnan(scale):
        scale = 1.0
    step = np.float32(scale) * x
    loss, kl, index, candidate = math.nan, math.nan, 0, theta
    for index in range(settings.max_backtracks):
        say(f"line search {index + 1}/{settings.max_backtracks}")
        candidate = unflatten(start - np.float32(settings.backtrack_ratio**index) * step, theta)
        loss, kl = loss_and_kl(candidate)
        if loss < loss_before and kl <= settings.step_size:
            break
    rejected = not (loss < loss_before and kl < settings.step_size)
    if rejected:
        candidate = theta
        loss, kl = loss_before, kl_before
    info = StepInfo(
        loss_before=loss_before,
        loss_after=loss,
        kl_before=kl_before,
        kl_after=kl,
        backtrack_index=index,
        rejected=rejected,
        scale=scale * settings.backtrack_ratio**index,
        limit_ratio=kl / settings.step_size,
        gradient_norm=float(np.linalg.norm(g)),
        direction=x,
    )
    return candidate, info
