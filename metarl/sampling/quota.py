"""When a sampling round ends, and how many steps it can hold at most.

Shapes: `M` tasks, `R` copies per task, `H` horizon, `S` capacity; a *tick* is one control step of every copy.
"""

from typing import NamedTuple

from metarl.experiment import checks

STOP_RULES = ("per_task", "global", "truncate")


class Quota(NamedTuple):
    """The end of a round.

    Attributes:
        per_task: steps in complete episodes after which a task is done.
        in_all: steps in complete episodes of all tasks together after which the round is over, with every episode that
            completes at that tick; None: every task goes by itself.
        max_ticks: no round can be longer.
        truncates: whether a round goes on to max_ticks in any case, and what then runs is cut and kept.
        capacity: S.
    """

    per_task: int
    in_all: int | None
    max_ticks: int
    capacity: int
    truncates: bool = False


def make_quota(
    stop_rule: str,
    num_tasks: int,
    rollouts_per_task: int,
    horizon: int,
    ends_early: bool,
    min_steps: int | None = None,
) -> Quota:
    """Returns the quota of a stop rule.

    "per_task": episodes are taken in order of completion until a task has R*H steps (TESP specification, section 4).
    "global": all tasks go on in lock-step until M*R*H steps are complete (MB-MPO specification, section 5.1), so that
    with early ends tasks contribute unequal numbers of steps. "truncate": every copy makes H steps, and the episodes
    that are still running are cut and kept, so that no step is lost (O-23). Without early ends all are the same.
    Another number of steps than M*R*H makes the copies go on for so much longer or shorter.

    Args:
        stop_rule: one of `STOP_RULES`.
        num_tasks: M.
        rollouts_per_task: R.
        horizon: H.
        ends_early: whether episodes can terminate before the horizon.
        min_steps: of all tasks together, another number than M*R*H; at least 1. With "per_task" each task has the
            same share, rounded up.

    Raises:
        UserError: an unknown rule, or a bad `min_steps`.
    """
    M, R, H = num_tasks, rollouts_per_task, horizon
    checks.choice("stop_rule", stop_rule, STOP_RULES)
    in_all = M * R * H if min_steps is None else checks.integer("min_steps", min_steps, minimum=1)
    if not ends_early:
        # All copies complete their episodes together: a round is so many sweeps of all copies.
        sweeps = -(-in_all // (M * R * H))
        return Quota(sweeps * R * H, None, sweeps * H, sweeps * R * H)
    if stop_rule == "truncate":
        ticks = -(-in_all // (M * R))
        return Quota(R * ticks, None, ticks, R * ticks, truncates=True)
    if stop_rule == "per_task":
        # After t ticks every copy has made t steps, of which fewer than H belong to its running episode: a task has
        # completed at least R*(t - H + 1) steps. The last episode that it needs may overshoot by H - 1.
        need = -(-in_all // M)
        return Quota(need, None, -(-need // R) + H - 1, need + H - 1)
    # By the same count all copies together have completed at least M*R*(t - H + 1) steps.
    max_ticks = -(-in_all // (M * R)) + H - 1
    return Quota(max_ticks * R, in_all, max_ticks, max_ticks * R)
