"""Evaluation of a trained method by itself: goals, adaptation, returns per goal and pooled (TESP specification, 6).

A goal is evaluated as in validation: the complete adaptation with frozen meta-parameters and stochastic actions. Goals
are the independent units of all intervals: a goal's value is the mean over its episodes, whose number differs between
goals because a round takes complete episodes until R*H steps.

Shapes: `n` goals, `K` fast-updates.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from metarl.experiment import checks
from metarl.experiment.errors import UserError
from metarl.experiment.learner import EvaluationRequest, EvaluationResult, NonFiniteError, Report
from metarl.experiment.metrics import aligned
from metarl.experiment.statistics import CONFIDENCE, mean_interval
from metarl.sampling.noise import TransitionNoise
from metarl.sampling.steps import Episodes
from metarl.scaling.pool import LocalPool
from metarl.simulation.task_family import TaskFamily
from tesp.settings import FastAdaptation
from tesp.task_sets import task_columns
from tesp.validation import GOAL_SETS, adapt_to_goals, do_nothing_returns

if TYPE_CHECKING:
    from tesp.learner import TespLearner

EXPLICIT = "explicit"
_ALL = "all"
_MOST_GOALS_SHOWN = 25
_MOST_NUMBERS_SHOWN = 4  # of a task
_PERCENT = round(100 * CONFIDENCE)


class GoalGroup(NamedTuple):
    """Goals that are evaluated and reported together.

    Attributes:
        name: "train", "test_1", "test_2" or "explicit"; with the goal's index it keys the random numbers.
        goals: [n, G] float64: goals in metres, or the tasks of another family.
        noise: on its transitions, or None.
    """

    name: str
    goals: np.ndarray
    noise: TransitionNoise | None


class Measured(NamedTuple):
    """What a group's goals gave; all [K+1, n] float64 but `do_nothing`.

    Attributes:
        returns: mean undiscounted return of the goal's episodes after k fast-updates.
        length: mean number of steps.
        success: share of episodes that ended by arriving; NaN for families without arrival.
        episodes: their number.
        do_nothing: [n] return of zero actions.
    """

    returns: np.ndarray
    length: np.ndarray
    success: np.ndarray
    episodes: np.ndarray
    do_nothing: np.ndarray


def evaluate(learner: "TespLearner", request: EvaluationRequest, report: Report) -> EvaluationResult:
    """Adapts the learner's parameters to the goals that are asked for; see `Learner.evaluate`.

    Random numbers are keyed by (seed, completed meta-updates, "evaluation/<set>", index of the goal in its set).
    """
    groups = goal_groups(learner, request)
    adaptation = learner.adaptation.resized(rollouts_per_task=request.episodes, inner_updates=request.fast_updates)
    seed = learner.seed if request.seed is None else request.seed
    # One shard, hence one compilation, for all groups; no larger than the largest of them.
    size = min(learner.meta_batch_size, max(len(group.goals) for group in groups))
    pool = LocalPool([learner.make_shard(size, adaptation)])
    measured: dict[str, Measured] = {}
    env_steps = 0
    for group in groups:
        result = adapt_to_goals(
            pool,
            learner.parameters,
            group.goals,
            seed=seed,
            iteration=learner.iteration,
            phase=f"evaluation/{group.name}",
            transition_noise=group.noise,
            report=report,
        )
        env_steps += result.simulated_steps
        do_nothing = do_nothing_returns(learner.family, group.goals, adaptation.horizon)
        measured[group.name] = per_goal(result.rounds, do_nothing)
        _require_finite(group, measured[group.name])
    per_task = [row for group in groups for row in _goal_rows(learner.family, group, measured[group.name])]
    pooled = _pooled_rows(groups, measured)
    notes = _notes(learner, request, adaptation, groups)
    settings = {
        "method": type(learner.method).__name__,
        "family": learner.family.name,
        "seed": seed,
        "fast_updates": adaptation.inner_updates,
        "rollouts_per_task": adaptation.rollouts_per_task,
        "horizon": adaptation.horizon,
        "goals": {group.name: len(group.goals) for group in groups},
        "noise_sigma": {group.name: group.noise.sigma if group.noise else 0.0 for group in groups},
        "noise_kind": {group.name: group.noise.kind if group.noise else None for group in groups},
        "confidence": CONFIDENCE,
    }
    return EvaluationResult(per_task, pooled, _text(settings, per_task, pooled, notes), notes, settings, env_steps)


def goal_groups(learner: "TespLearner", request: EvaluationRequest) -> list[GoalGroup]:
    """Returns the groups of goals that `request` asks for.

    Transition noise is that of the request, else that of the run's validation; never on the training goals.

    Raises:
        UserError: an unknown set, more goals than a set has, or a goal that is not two numbers.
    """
    names = [checks.choice("--goal_set", name, (*GOAL_SETS, _ALL)) for name in request.task_sets]
    if _ALL in names or not (names or request.tasks):
        names = list(GOAL_SETS)
    if request.noise_sigma is None:
        noise_for = learner.validation.noise_for
    else:
        kind = checks.choice("--noise_kind", request.noise_kind or "observation", ("observation", "state"))
        noise = TransitionNoise(request.noise_sigma, kind) if request.noise_sigma else None

        def noise_for(goal_set: str) -> TransitionNoise | None:
            return None if goal_set == "train" else noise

        if noise is not None and set(names) == {"train"} and not request.tasks:
            raise UserError(
                f"--noise_sigma={request.noise_sigma:g} has no effect on the training goals, which never have "
                "transition noise; take another --goal_set"
            )
    groups = []
    for name in dict.fromkeys(names):
        goals = np.asarray(getattr(learner.goal_sets, name))
        if request.num_tasks is not None and request.num_tasks > len(goals):
            raise UserError(f"--num_goals={request.num_tasks}: the goal set {name!r} has {len(goals)} goals")
        groups.append(GoalGroup(name, goals[: request.num_tasks], noise_for(name)))
    if request.tasks:
        dim = learner.family.task_dim
        for task in request.tasks:
            if len(task) != dim:
                text = ",".join(f"{number:g}" for number in task)
                raise UserError(f"--goal={text}: a goal of {learner.family.name} is {dim} numbers, got {len(task)}")
        groups.append(GoalGroup(EXPLICIT, np.array(request.tasks, np.float64), noise_for(EXPLICIT)))
    return groups


def per_goal(rounds: Sequence[Episodes], do_nothing: np.ndarray) -> Measured:
    """Means over the episodes of each goal.

    Args:
        rounds: the episodes after 0 .. K fast-updates; each goal has at least one in every round.
        do_nothing: [n].
    """
    count = len(do_nothing)
    values: dict[str, list[np.ndarray]] = {"returns": [], "length": [], "success": [], "episodes": []}
    for episodes in rounds:
        number = np.bincount(episodes.task, minlength=count).astype(np.float64)
        for name, value in (
            ("returns", episodes.episode_return),
            ("length", episodes.length),
            ("success", episodes.final.get("arrived", np.full(len(episodes.task), np.nan))),
        ):
            values[name].append(np.bincount(episodes.task, weights=value, minlength=count) / number)
        values["episodes"].append(number)
    return Measured(**{name: np.stack(value) for name, value in values.items()}, do_nothing=do_nothing)


def _has_arrival(measured: Measured) -> bool:
    return not bool(np.isnan(measured.success).any())


def _require_finite(group: GoalGroup, measured: Measured) -> None:
    bad = np.argwhere(~np.isfinite(measured.returns))
    if len(bad):
        k, index = bad[0]
        raise NonFiniteError(f"the return on goal {index} of {group.name} after {k} fast-updates is not finite")


def _goal_rows(family: TaskFamily, group: GoalGroup, measured: Measured) -> list[dict[str, Any]]:
    """One row per goal; a column per statistic that the family has and number of fast-updates."""
    rows = []
    for index, goal in enumerate(group.goals):
        row: dict[str, Any] = {
            "goal_set": group.name,
            "index": index,
            **task_columns(family, goal),
            "noise_sigma": group.noise.sigma if group.noise else 0.0,
            "do_nothing": float(measured.do_nothing[index]),
        }
        for label, values in (
            ("return", measured.returns),
            ("length", measured.length),
            ("success", measured.success),
            ("episodes", measured.episodes.astype(np.int64)),
        ):
            if label != "success" or _has_arrival(measured):
                row |= {f"{label}_{k}": values[k, index].item() for k in range(len(values))}
        rows.append(row)
    return rows


def _pooled_rows(groups: Sequence[GoalGroup], measured: Mapping[str, Measured]) -> list[dict[str, Any]]:
    """Rows of every group, and of all goals together where there are several groups."""
    rows = []
    for group in groups:
        rows += _rows_of(group.name, GOAL_SETS.get(group.name, ""), measured[group.name])
    if len(groups) > 1:
        parts = [measured[group.name] for group in groups]
        together = Measured(*(np.concatenate(arrays, axis=-1) for arrays in zip(*parts, strict=True)))
        rows += _rows_of("pooled", "", together)
    return rows


def _rows_of(name: str, paper: str, measured: Measured) -> list[dict[str, Any]]:
    """One row per number of fast-updates.

    `return` is the mean over goals, `gain` that of return minus return before the first fast-update, goal by goal,
    each with its interval; `episode_return` is the mean over episodes, as validation reports it.
    """
    rows = []
    last = len(measured.returns) - 1
    for k, returns in enumerate(measured.returns):
        interval = mean_interval(returns)
        row = {
            "goal_set": name,
            "paper": paper,
            "goals": len(returns),
            "fast_updates": k,
            "adaptation": "pre" if k == 0 else "post" if k == last else "",
            "return": interval.mean,
            "return_low": interval.low,
            "return_high": interval.high,
            "gain": None,
            "gain_low": None,
            "gain_high": None,
        }
        if k:
            gain = mean_interval(returns - measured.returns[0])
            row |= {"gain": gain.mean, "gain_low": gain.low, "gain_high": gain.high}
        weights = measured.episodes[k]
        row |= {
            "success": float(np.mean(measured.success[k])) if _has_arrival(measured) else None,
            "length": float(np.mean(measured.length[k])),
            "do_nothing": float(np.mean(measured.do_nothing)),
            "episodes": int(np.sum(weights)),
            "episode_return": float(np.sum(returns * weights) / np.sum(weights)),
        }
        rows.append(row)
    return rows


def _notes(
    learner: "TespLearner", request: EvaluationRequest, adaptation: FastAdaptation, groups: Sequence[GoalGroup]
) -> list[str]:
    """What a reader of the numbers must know."""
    notes = [
        f"pre-adaptation is fast_updates 0, post-adaptation is fast_updates {adaptation.inner_updates}",
        f"intervals: {_PERCENT} % t-intervals of the mean over goals, the independent units (none for a single goal); "
        "a goal's value is the mean of its episodes; the choice of the training seed is not covered",
        "gain: return minus the same goal's return before the first fast-update",
    ]
    if learner.method.uses_encoder and adaptation.warmup:
        notes.append(
            "this method samples a warm-up round first and encodes it: fast_updates 0 is after the warm-up round, "
            "not with zero data"
        )
    if request.episodes not in (None, learner.adaptation.rollouts_per_task):
        notes.append(
            f"every sampling round has {adaptation.rollouts_per_task} copies per goal, in training "
            f"{learner.adaptation.rollouts_per_task}: the fast-updates see other amounts of data"
        )
    noisy = [group.name for group in groups if group.noise]
    clean = [group.name for group in groups if not group.noise]
    if noisy and clean:
        notes.append(f"transition noise on {', '.join(noisy)}; none on {', '.join(clean)}")
    return notes


def _text(
    settings: Mapping[str, Any],
    per_task: Sequence[Mapping[str, Any]],
    pooled: Sequence[Mapping[str, Any]],
    notes: Sequence[str],
) -> str:
    """The tables and notes as the log shows them."""
    noise = [
        f"{name} {sigma:g} on {settings['noise_kind'][name]}"
        for name, sigma in settings["noise_sigma"].items()
        if sigma
    ]
    lines = [
        f"{settings['method']} on {settings['family']}, {settings['rollouts_per_task']} copies per goal, horizon "
        f"{settings['horizon']}, seed {settings['seed']}, noise: {', '.join(noise) or 'none'}",
        aligned([_shown(row) for row in pooled]),
    ]
    if len(per_task) <= _MOST_GOALS_SHOWN:
        numbers = "task_" if sum(name.startswith("task_") for name in per_task[0]) <= _MOST_NUMBERS_SHOWN else "index"
        wanted = ("goal_set", "index", "goal_x", "goal_y", numbers, "do_nothing", "return_", "episodes_")
        rows = [{name: value for name, value in row.items() if name.startswith(wanted)} for row in per_task]
        lines.append(aligned(rows))
    else:
        lines.append(f"{len(per_task)} goals: one row for each in per_task.csv")
    return "\n".join([*lines, *(f"* {note}" for note in notes)])


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """A pooled row, its intervals as one column each."""

    def interval(name: str) -> str:
        low, high = row[f"{name}_low"], row[f"{name}_high"]
        return "-" if low is None else f"[{low:.4g}, {high:.4g}]"

    return {
        "goal_set": row["goal_set"],
        "paper": row["paper"] or None,
        "goals": row["goals"],
        "fast_updates": row["fast_updates"],
        "adaptation": row["adaptation"],
        "return": row["return"],
        f"{_PERCENT}% interval": interval("return"),
        "gain": row["gain"],
        f"{_PERCENT}% of gain": interval("gain"),
        "success": row["success"],
        "length": row["length"],
        "do_nothing": row["do_nothing"],
        "episodes": row["episodes"],
    }
