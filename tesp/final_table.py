"""The table that ends a run: what adaptation is worth on each goal set, before and after training."""

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import gin
import numpy as np

from metarl.experiment import checks
from metarl.scaling.pool import LocalPool
from tesp import reporting
from tesp.validation import GOAL_SETS, adapt_to_goals, do_nothing_return

if TYPE_CHECKING:
    from tesp.learner import TespLearner


@gin.configurable(module="tesp")
class FinalTable:
    """How the final table is measured.

    Args:
        num_goals: the first so many goals of each set; 0 for no table; default: all.
        rollouts_per_task: copies per goal; default: as in training.
        goal_sets: which sets.
    """

    def __init__(
        self,
        *,
        num_goals: int | None = None,
        rollouts_per_task: int | None = None,
        goal_sets: Sequence[str] = tuple(GOAL_SETS),
    ):
        self.num_goals = None if num_goals is None else checks.integer("FinalTable.num_goals", num_goals, minimum=0)
        if rollouts_per_task is not None:
            rollouts_per_task = checks.integer("FinalTable.rollouts_per_task", rollouts_per_task, minimum=1)
        self.rollouts_per_task = rollouts_per_task
        self.goal_sets = checks.choices("FinalTable.goal_sets", goal_sets, GOAL_SETS)

    def rows(self, learner: "TespLearner", report: Callable[[str], None]) -> list[dict[str, Any]]:
        """One row per goal set.

        Columns: the set and its name in the paper; the number of goals; the return of doing nothing; the untrained
        method's return after all fast-updates; the trained method's return after 0 .. K fast-updates. With the
        transition noise that validation has, if any (section 6.2).
        """
        if self.num_goals == 0:
            return []
        pool = learner.pool
        adaptation = learner.adaptation
        if self.rollouts_per_task not in (None, adaptation.rollouts_per_task):
            adaptation = adaptation.resized(rollouts_per_task=self.rollouts_per_task)
            pool = LocalPool([learner.make_shard(learner.meta_batch_size, adaptation)])
        rows = []
        for name in self.goal_sets:
            goals = np.asarray(getattr(learner.goal_sets, name))[: self.num_goals]
            returns = {}
            for label, parameters in (("untrained", learner.initial_parameters()), ("trained", learner.parameters)):
                result = adapt_to_goals(
                    pool,
                    parameters,
                    goals,
                    seed=learner.seed,
                    iteration=learner.iteration,
                    phase=f"final/{name}",
                    transition_noise=learner.validation.noise_for(name),
                    report=functools.partial(_report_as, report, f"final table, {label}"),
                )
                returns[label] = [reporting.pooled([episodes])["return"] for episodes in result.rounds]
            rows.append(
                {
                    "goal_set": name,
                    "paper": GOAL_SETS[name],
                    "goals": len(goals),
                    "do_nothing": do_nothing_return(learner.family, goals, learner.adaptation.horizon),
                    "untrained_post": returns["untrained"][-1],
                    **{f"fast_update_{k}": value for k, value in enumerate(returns["trained"])},
                }
            )
        return rows


def _report_as(report: Callable[[str], None], what: str, phase: str) -> None:
    report(f"{what}: {phase}")
