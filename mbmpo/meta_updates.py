"""Meta-updates of the policy's parameters: TRPO and VPG, and the interface that PPO shares (MB-MPO specification, 4).

A meta-update receives the evaluation as a function, (what, theta, argument) -> `Evaluation`, summed over shards; it
does not know how many there are. Shapes: `M` tasks, `K` inner steps.
"""

import abc
import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import gin
import numpy as np

from mbmpo.meta_objective import Argument, Evaluation, MetaObjective, RandomKey
from mbmpo.objectives import Objective
from mbmpo.policies import GaussianMLPPolicy, Weights
from metarl.experiment import checks
from metarl.optim.adam import adam_init, adam_step
from metarl.optim.trust_region import HVP_KINDS, TrustRegion, hessian_product, trust_region_step

Report = Callable[[str], None]
Info = dict[str, float]
CONSTRAINTS = ("post_update", "pre_update")


class Evaluate(Protocol):
    """An evaluation over all shards; see `MetaObjective.evaluate`."""

    def __call__(self, what: str, theta: Weights, argument: Argument | None = None) -> Evaluation:
        """Returns sums over all tasks, and terms of all tasks in order."""


class MetaUpdate(abc.ABC):
    """One way to improve theta on the data of one meta-step.

    Attributes:
        use_maml: False trains the unadapted policy instead: one Adam step on the inner loss alone (section 4.1).
        info_names: what `update` reports, the same in every call.
    """

    use_maml: bool
    info_names: tuple[str, ...]

    def __init__(self, use_maml: bool, learning_rate: float):
        name = type(self).__name__
        self.use_maml = checks.flag(f"{name}.use_maml", use_maml)
        self.learning_rate = checks.real(f"{name}.learning_rate", learning_rate, minimum=0.0)

    @abc.abstractmethod
    def losses(self) -> Objective:
        """The losses that this update evaluates; adaptation's settings are not among them."""

    def make_objective(
        self,
        policy: GaussianMLPPolicy,
        *,
        inner_lr: float,
        trainable_inner_lr: bool = False,
        first_order: bool = False,
    ) -> MetaObjective:
        """The compiled evaluations that `update` asks for; shards hold one each."""
        losses = self.losses()._replace(first_order=first_order, trainable_step_sizes=trainable_inner_lr)
        return MetaObjective(policy, losses, inner_lr)

    def require_rows(self, capacity: int) -> None:
        """Passes if the update can work on phases of at most so many rows per task.

        Raises:
            UserError: it needs more.
        """
        del capacity

    def initial_state(self, theta: Weights, num_tasks: int, num_inner_steps: int) -> dict[str, Any]:
        """State before the first update: a nest of arrays and tensors for checkpoints; M and K are the arguments."""
        return {} if self.use_maml else {"adam": adam_init(theta)}

    def update(
        self,
        theta: Weights,
        state: Mapping[str, Any],
        evaluate: Evaluate,
        report: Report | None = None,
        key: RandomKey | None = None,
    ) -> tuple[Weights, dict[str, Any], Info]:
        """One meta-update.

        Args:
            theta: meta-parameters.
            state: of the update before, or `initial_state`.
            evaluate: on this meta-step's data.
            report: told what is being computed.
            key: names the update's random numbers; needed by mini-batches only.

        Returns:
            (new theta, new state, floats by `info_names`; without MAML those that there are). Numbers that are not
            finite are the caller's to notice.
        """
        say = report or (lambda _: None)
        if self.use_maml:
            return self._update(theta, dict(state), evaluate, say, key or RandomKey(0, 0, "meta_update"))
        say("policy gradient without adaptation")
        found = evaluate("inner_gradient", theta)
        gradient = mean_gradient(found)
        theta, adam = adam_step(theta, gradient, state["adam"], self.learning_rate)
        info = {"loss_before": mean_term(found, "loss"), "gradient_norm": _norm(gradient)}
        return theta, {"adam": adam}, {name: info[name] for name in self.info_names if name in info}

    @abc.abstractmethod
    def _update(
        self, theta: Weights, state: dict[str, Any], evaluate: Evaluate, report: Report, key: RandomKey
    ) -> tuple[Weights, dict[str, Any], Info]:
        """`update` where adaptation is used."""


@gin.configurable(module="mbmpo")
class MetaTRPO(MetaUpdate):
    """One trust-region step (section 4.1).

    Args:
        step_size: largest mean KL, above 0.
        cg_iterations: of the conjugate gradient.
        residual_tol: squared residual at which it stops.
        damping: added to the Hessian's diagonal.
        backtrack_ratio: of the line search.
        max_backtracks: candidates of the line search.
        hvp: Hessian-vector product: "fd_eps_one", a finite difference whose step is 1 / ||theta|| as in the original
            (O-3), "fd" with a small step, or "exact".
        constraint: whose KL is limited: of the adapted policies, "post_update" (O-4), or of the unadapted,
            "pre_update".
        entropy_bonus: coefficient of the mean entropy of the policies sampled before each inner step.
        use_maml: False: one Adam step on the inner loss alone.
        learning_rate: Adam's, without MAML.
    """

    info_names = (
        "loss_before",
        "loss_after",
        "kl_before",
        "kl_after",
        "backtrack_index",
        "rejected",
        "scale",
        "limit_ratio",
        "gradient_norm",
    )

    def __init__(
        self,
        *,
        step_size: float = 0.01,
        cg_iterations: int = 10,
        residual_tol: float = 1e-10,
        damping: float = 1e-5,
        backtrack_ratio: float = 0.8,
        max_backtracks: int = 15,
        hvp: str = "fd_eps_one",
        constraint: str = "post_update",
        entropy_bonus: float = 0.0,
        use_maml: bool = True,
        learning_rate: float = 1e-3,
    ):
        super().__init__(use_maml, learning_rate)
        name = type(self).__name__
        self.settings = TrustRegion(
            step_size=checks.positive(f"{name}.step_size", step_size),
            cg_iterations=checks.integer(f"{name}.cg_iterations", cg_iterations, minimum=1),
            residual_tol=checks.real(f"{name}.residual_tol", residual_tol, minimum=0.0),
            backtrack_ratio=checks.real(f"{name}.backtrack_ratio", backtrack_ratio, minimum=0.0, maximum=1.0),
            max_backtracks=checks.integer(f"{name}.max_backtracks", max_backtracks, minimum=1),
        )
        self.damping = checks.real(f"{name}.damping", damping, minimum=0.0)
        self.hvp = checks.choice(f"{name}.hvp", hvp, HVP_KINDS)
        self.constraint = checks.choice(f"{name}.constraint", constraint, CONSTRAINTS)
        self.entropy_bonus = checks.real(f"{name}.entropy_bonus", entropy_bonus)

    def losses(self) -> Objective:
        """Likelihood ratio outside, likelihood inside."""
        return Objective(
            outer="ratio", inner="likelihood", entropy_bonus=self.entropy_bonus, constraint=self.constraint
        )

    def product(self, theta: Weights, evaluate: Evaluate) -> Callable[[np.ndarray], np.ndarray]:
        """The damped Hessian of the mean KL at theta, as a function of flat vectors."""

        def kl_gradient(point: Weights) -> Weights:
            return _mean_over_rows(evaluate("kl_gradient", point))

        def exact_product(point: Weights, vector: Weights) -> Weights:
            return _mean_over_rows(evaluate("kl_product", point, Argument(vector=vector)))

        def kl_difference(point: Weights, step: Weights) -> Weights:
            return _mean_over_rows(evaluate("kl_difference", point, Argument(vector=step)))

        return hessian_product(self.hvp, theta, kl_gradient, exact_product, self.damping, kl_difference)

    def _update(
        self, theta: Weights, state: dict[str, Any], evaluate: Evaluate, report: Report, key: RandomKey
    ) -> tuple[Weights, dict[str, Any], Info]:
        report("meta-gradient")
        found = evaluate("loss_gradient", theta)

        def loss_and_kl(point: Weights) -> tuple[float, float]:
            terms = evaluate("scalars", point)
            return mean_term(terms, "loss"), mean_kl(terms)

        theta, info = trust_region_step(
            theta,
            mean_gradient(found),
            mean_term(found, "loss"),
            mean_kl(found),
            self.product(theta, evaluate),
            loss_and_kl,
            self.settings,
            report,
        )
        return theta, state, info.scalars()


@gin.configurable(module="mbmpo")
class TRPO(MetaTRPO):
    """The same step with the defaults of the plain, unadapted policy gradient: the exact product (section 4.1).

    For data without inner steps; the constraint is then the policy's own KL. Arguments as in `MetaTRPO`.
    """

    def __init__(
        self,
        *,
        step_size: float = 0.01,
        cg_iterations: int = 10,
        residual_tol: float = 1e-10,
        damping: float = 1e-5,
        backtrack_ratio: float = 0.8,
        max_backtracks: int = 15,
        hvp: str = "exact",
        entropy_bonus: float = 0.0,
    ):
        super().__init__(
            step_size=step_size,
            cg_iterations=cg_iterations,
            residual_tol=residual_tol,
            damping=damping,
            backtrack_ratio=backtrack_ratio,
            max_backtracks=max_backtracks,
            hvp=hvp,
            entropy_bonus=entropy_bonus,
        )


@gin.configurable(module="mbmpo")
class MetaVPG(MetaUpdate):
    """One Adam step on the adapted policies' likelihood objective, all rows at once (section 4.3; O-13, O-14).

    Args:
        learning_rate: Adam's.
        use_maml: False: the inner loss alone.
    """

    info_names = ("loss_before", "kl_before", "gradient_norm")

    def __init__(self, *, learning_rate: float = 1e-3, use_maml: bool = True):
        super().__init__(use_maml, learning_rate)

    def losses(self) -> Objective:
        """Likelihood outside and inside."""
        return Objective(outer="likelihood", inner="likelihood")

    def initial_state(self, theta: Weights, num_tasks: int, num_inner_steps: int) -> dict[str, Any]:
        """Adam's moments."""
        return {"adam": adam_init(theta)}

    def _update(
        self, theta: Weights, state: dict[str, Any], evaluate: Evaluate, report: Report, key: RandomKey
    ) -> tuple[Weights, dict[str, Any], Info]:
        report("meta-gradient")
        found = evaluate("loss_gradient", theta)
        info = {
            "loss_before": mean_term(found, "loss"),
            "kl_before": mean_kl(found),
            "gradient_norm": _norm(found.gradient) / len(found.terms["loss"]),
        }
        theta, adam = adam_step(theta, mean_gradient(found), state["adam"], self.learning_rate)
        return theta, {"adam": adam}, info


def mean_term(found: Evaluation, name: str) -> float:
    """Mean over tasks of a per-task term."""
    return float(np.mean(found.terms[name], dtype=np.float64))


def mean_kl(found: Evaluation) -> float:
    """Mean over the rows of all tasks together of the constrained KL."""
    return float(np.sum(found.terms["kl"], dtype=np.float64) / np.sum(found.terms["count"], dtype=np.float64))


def mean_gradient(found: Evaluation) -> Weights:
    """Gradient of the mean over tasks of the loss."""
    return _divided(found.gradient, len(found.terms["loss"]))


def _mean_over_rows(found: Evaluation) -> Weights:
    return _divided(found.gradient, float(np.sum(found.terms["count"], dtype=np.float64)))


def _divided(gradient: Weights, count: float) -> Weights:
    return {name: np.asarray(value) / np.float32(count) for name, value in gradient.items()}


def _norm(gradient: Weights) -> float:
    return math.sqrt(sum(float(np.sum(np.square(value), dtype=np.float64)) for value in gradient.values()))
