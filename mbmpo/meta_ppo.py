"""PPO as meta-update, with KL coefficients that adapt per task (MB-MPO specification, section 4.2).

Shapes: `M` tasks, `K` inner steps.
"""

from typing import Any

import gin
import numpy as np

from mbmpo.meta_objective import Argument, MiniBatch, Penalties, RandomKey
from mbmpo.meta_updates import Evaluate, Info, MetaUpdate, Report, mean_gradient, mean_kl, mean_term
from mbmpo.objectives import Objective
from mbmpo.policies import Weights
from metarl.experiment import checks
from metarl.experiment.errors import UserError
from metarl.optim.adam import adam_init, adam_step

_TOLERANCE = 1e-6


@gin.configurable(module="mbmpo")
class MetaPPO(MetaUpdate):
    """Some epochs of Adam on a clipped or penalised surrogate.

    The loss of a task is its clipped surrogate (or the unclipped one plus an outer KL penalty), plus a penalty on the
    KL of the policy before each inner step from the one that sampled there, minus the entropy bonus. The coefficients
    belong to the update's state.

    Args:
        learning_rate: Adam's.
        max_epochs: passes over the data; fewer if an epoch changes the loss by less than 1e-6.
        num_batches: mini-batches per epoch, every phase and task permuted by itself; their size is the smallest number
            of rows of all phases and tasks divided by this, at least 1; other rows are dropped. None: all rows at once.
        multi_adam: a separate Adam state for every step position within an update.
        clip_eps: of the likelihood ratio.
        clip_outer: clip the ratio; False: the outer KL penalty instead.
        target_inner_step: KL that the inner coefficients aim at.
        target_outer_step: KL that the outer coefficients aim at.
        init_inner_kl_penalty: inner coefficients before training; 1 in MB-MPO, 1e-10 in the original's real-task MAML.
        init_outer_kl_penalty: outer coefficients before training.
        adaptive_kl_penalty: adapt the coefficients after each update.
        entropy_bonus: coefficient of the mean entropies before each inner step, every task's own (O-25).
        use_maml: False: one Adam step on the inner loss alone.
    """

    info_names = ("loss_before", "loss_after", "kl_before", "kl_after", "inner_kl", "outer_kl", "epochs")

    def __init__(
        self,
        *,
        learning_rate: float = 1e-3,
        max_epochs: int = 8,
        num_batches: int | None = 1,
        multi_adam: bool = False,
        clip_eps: float = 0.2,
        clip_outer: bool = True,
        target_inner_step: float = 0.01,
        target_outer_step: float = 0.001,
        init_inner_kl_penalty: float = 1.0,
        init_outer_kl_penalty: float = 1e-11,
        adaptive_kl_penalty: bool = True,
        entropy_bonus: float = 0.0,
        use_maml: bool = True,
    ):
        super().__init__(use_maml, learning_rate)
        name = "MetaPPO"
        self.max_epochs = checks.integer(f"{name}.max_epochs", max_epochs, minimum=1)
        self.num_batches = None
        if num_batches is not None:
            self.num_batches = checks.integer(f"{name}.num_batches", num_batches, minimum=1)
        self.multi_adam = checks.flag(f"{name}.multi_adam", multi_adam)
        self.clip_eps = checks.real(f"{name}.clip_eps", clip_eps, minimum=0.0)
        self.clip_outer = checks.flag(f"{name}.clip_outer", clip_outer)
        self.target_inner_step = checks.real(f"{name}.target_inner_step", target_inner_step, minimum=0.0)
        self.target_outer_step = checks.real(f"{name}.target_outer_step", target_outer_step, minimum=0.0)
        self.init_inner_kl_penalty = checks.real(f"{name}.init_inner_kl_penalty", init_inner_kl_penalty, minimum=0.0)
        self.init_outer_kl_penalty = checks.real(f"{name}.init_outer_kl_penalty", init_outer_kl_penalty, minimum=0.0)
        self.adaptive_kl_penalty = checks.flag(f"{name}.adaptive_kl_penalty", adaptive_kl_penalty)
        self.entropy_bonus = checks.real(f"{name}.entropy_bonus", entropy_bonus)

    def losses(self) -> Objective:
        """Clipped or plain ratio outside, ratio inside."""
        return Objective(
            outer="clipped" if self.clip_outer else "ratio",
            inner="ratio",
            entropy_bonus=self.entropy_bonus,
            clip_eps=self.clip_eps,
            inner_penalty=True,
            outer_penalty=not self.clip_outer,
        )

    def require_rows(self, capacity: int) -> None:
        """Passes if a mini-batch has a row of every task and phase where they have at most so many.

        Raises:
            UserError: there are more mini-batches than rows.
        """
        if self.use_maml and self.num_batches is not None and self.num_batches > capacity:
            raise UserError(f"MetaPPO.num_batches = {self.num_batches}: some task has only {capacity} rows in a phase")

    def initial_state(self, theta: Weights, num_tasks: int, num_inner_steps: int) -> dict[str, Any]:
        """Adam's moments, for every step position if they are separate, and the coefficients [M, K] and [M]."""
        if not self.use_maml:
            return super().initial_state(theta, num_tasks, num_inner_steps)
        positions = self.max_epochs * (self.num_batches or 1) if self.multi_adam else 1
        return {
            "adam": {str(position): adam_init(theta) for position in range(positions)},
            "inner_coefficients": np.full((num_tasks, num_inner_steps), self.init_inner_kl_penalty),
            "outer_coefficients": np.full(num_tasks, self.init_outer_kl_penalty),
        }

    def _update(
        self, theta: Weights, state: dict[str, Any], evaluate: Evaluate, report: Report, key: RandomKey
    ) -> tuple[Weights, dict[str, Any], Info]:
        penalties = Penalties(np.asarray(state["inner_coefficients"]), np.asarray(state["outer_coefficients"]))
        whole = Argument(penalties=penalties)
        before = found = evaluate("scalars", theta, whole)
        adams = dict(state["adam"])
        num_batches = self.num_batches or 1
        size, everything = self._batch_size(before.terms["rows"])
        loss = mean_term(before, "loss")
        epoch = 0
        for epoch in range(self.max_epochs):
            report(f"epoch {epoch + 1}/{self.max_epochs}")
            for position in range(num_batches):
                batch = None if everything else MiniBatch(key, epoch, position, size, num_batches)
                gradient = mean_gradient(evaluate("loss_gradient", theta, whole._replace(minibatch=batch)))
                name = str(epoch * num_batches + position) if self.multi_adam else "0"
                theta, adams[name] = adam_step(theta, gradient, adams[name], self.learning_rate)
            found = evaluate("scalars", theta, whole)
            last, loss = loss, mean_term(found, "loss")
            if abs(last - loss) < _TOLERANCE:
                break
        state = {
            "adam": adams,
            "inner_coefficients": self._adapted(penalties.inner, found.terms["inner_kl"], self.target_inner_step),
            "outer_coefficients": penalties.outer
            if self.clip_outer
            else self._adapted(penalties.outer, found.terms["outer_kl"], self.target_outer_step),
        }
        info = {
            "loss_before": mean_term(before, "loss"),
            "loss_after": loss,
            "kl_before": mean_kl(before),
            "kl_after": mean_kl(found),
            "inner_kl": mean_term(found, "inner_kl"),
            "outer_kl": mean_term(found, "outer_kl"),
            "epochs": float(epoch + 1),
        }
        return theta, state, info

    def _batch_size(self, rows: np.ndarray) -> tuple[int, bool]:
        """Rows of a mini-batch, and whether that is simply all rows; raises UserError if there is not one for each."""
        fewest = int(rows.min())
        self.require_rows(fewest)
        if self.num_batches is None or (self.num_batches == 1 and fewest == int(rows.max())):
            return fewest, True
        return fewest // self.num_batches, False

    def _adapted(self, coefficients: np.ndarray, kl: np.ndarray, target: float) -> np.ndarray:
        """`adapted_coefficients`, unless they are held fixed."""
        return adapted_coefficients(coefficients, kl, target) if self.adaptive_kl_penalty else coefficients


def adapted_coefficients(coefficients: np.ndarray, kl: np.ndarray, target: float) -> np.ndarray:
    """Halved where KL < target / 1.5, doubled where KL > 1.5 target; any shape."""
    return np.where(
        kl < target / 1.5, coefficients / 2.0, np.where(kl > 1.5 * target, coefficients * 2.0, coefficients)
    )
