"""Testing a trained policy on real tasks: returns before and after inner updates on real data.

Tasks are the independent units of all intervals: a task's value is the mean over its episodes. Families without task
parameters have one task; its repetitions, each adapted from its own data, are then the units.

Shapes: `n` tasks, `K` inner updates.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mbmpo.adapting import real_shard
from mbmpo.policies import Weights
from mbmpo.real_data import draw_tasks, random_batch
from metarl.experiment import checks
from metarl.experiment.errors import UserError
from metarl.experiment.learner import EvaluationRequest, EvaluationResult, NonFiniteError, Report
from metarl.experiment.metrics import aligned
from metarl.experiment.statistics import CONFIDENCE, mean_interval
from metarl.sampling.random_actions import MAX_COPIES
from metarl.sampling.steps import Batch
from metarl.scaling.shard import TaskBatch

if TYPE_CHECKING:
    from mbmpo.mbmpc import MBMPCLearner
    from mbmpo.policy_learner import PolicyLearner

DRAWN, EXPLICIT = "drawn", "explicit"
_MOST_TASKS_SHOWN = 25
_FINAL_TASKS = 20
# A row shows so many of a task's numbers: random-parameter families have hundreds.
_TASK_NUMBERS = 8


def evaluate(learner: "PolicyLearner", request: EvaluationRequest, report: Report) -> EvaluationResult:
    """Adapts the learner's parameters to real tasks; see `Learner.evaluate`.

    Random numbers are keyed by (seed, completed iterations, "evaluation/<set>", index of the task).

    Raises:
        UserError: the request does not fit the learner.
    """
    groups = task_groups(learner, request)
    seed = learner.seed if request.seed is None else request.seed
    updates = learner.inner_updates if request.fast_updates is None else request.fast_updates
    if updates and not learner.inner_updates:
        raise UserError(f"--fast_updates={updates}: {type(learner).__name__} does not adapt; leave it at 0")
    rows: list[dict[str, Any]] = []
    pooled: list[dict[str, Any]] = []
    env_steps = 0
    for name, tasks in groups.items():
        batches = adapt_to_tasks(
            learner, learner.parameters, tasks, seed, f"evaluation/{name}", updates, request.episodes, report
        )
        env_steps += sum(int(batch.episodes.length.sum()) for batch in batches)
        returns, lengths = _per_task_finite(name, batches, len(tasks.tasks))
        rows += _task_rows(name, tasks, returns, lengths)
        pooled += _pooled(name, returns, lengths)
    rollouts = request.episodes or learner.rollouts_per_task
    settings = _settings(learner, seed, updates, rollouts, groups)
    notes = [
        f"pre-adaptation is fast_updates 0, post-adaptation is fast_updates {updates}; adaptation is to real rollouts",
        f"intervals: {round(100 * CONFIDENCE)} % t-intervals of the mean over tasks; the training seed is not covered",
    ]
    if learner.family.task_dim == 0:
        notes.append(f"{learner.family.name} has a single task: the rows are repetitions of it")
    if rollouts != learner.rollouts_per_task:
        notes.append(f"{rollouts} rollouts per task and phase, in training {learner.rollouts_per_task}")
    text = "\n".join(
        [
            f"{settings['method']} on {settings['family']}, {rollouts} rollouts per task, horizon {learner.horizon}",
            aligned(pooled),
            aligned(rows) if len(rows) <= _MOST_TASKS_SHOWN else f"{len(rows)} tasks: one row each in per_task.csv",
            *(f"* {note}" for note in notes),
        ]
    )
    return EvaluationResult(rows, pooled, text, notes, settings, env_steps)


def evaluate_planning(learner: "MBMPCLearner", request: EvaluationRequest, report: Report) -> EvaluationResult:
    """Planned real rollouts with the learner's present models; every rollout is a task of its own.

    Raises:
        UserError: inner updates or several rollouts per task are asked for, or other tasks than the family's.
    """
    if request.fast_updates or (request.episodes or 1) > 1 or request.noise_sigma is not None:
        raise UserError("MBMPCLearner plans and does not adapt: only --num_goals, --goal and --seed apply")
    seed = learner.seed if request.seed is None else request.seed
    rows: list[dict[str, Any]] = []
    pooled: list[dict[str, Any]] = []
    env_steps = 0
    groups = task_groups(learner, request)
    for name, tasks in groups.items():
        batch = learner.planned_rollouts(tasks, seed, f"evaluation/{name}", report)
        env_steps += int(batch.episodes.length.sum())
        returns, lengths = _per_task_finite(name, [batch], len(tasks.tasks))
        rows += _task_rows(name, tasks, returns, lengths)
        pooled += _pooled(name, returns, lengths)
    settings = _settings(learner, seed, 0, 1, groups)
    notes = ["actions are planned through the learned models at every step; there is no policy and no adaptation"]
    text = "\n".join([f"MBMPCLearner on {learner.family.name}", aligned(pooled), *(f"* {note}" for note in notes)])
    return EvaluationResult(rows, pooled, text, notes, settings, env_steps)


def task_groups(learner: Any, request: EvaluationRequest) -> dict[str, TaskBatch]:
    """The tasks that a request asks for, by set.

    Raises:
        UserError: a set that this learner does not have, a task of another size, or transition noise.
    """
    if request.noise_sigma is not None:
        raise UserError("--noise_sigma is for methods with a transition-noise study (TESP's); this run has none")
    names = [checks.choice("--goal_set", name, (DRAWN, "all")) for name in request.task_sets]
    groups: dict[str, TaskBatch] = {}
    family, seed = learner.family, learner.seed if request.seed is None else request.seed
    if names or not request.tasks:
        count = request.num_tasks or _FINAL_TASKS
        groups[DRAWN] = draw_tasks(family, count, seed, learner.iteration, "evaluation/tasks")
    if request.tasks:
        for task in request.tasks:
            if len(task) != family.task_dim:
                text = ",".join(f"{number:g}" for number in task)
                raise UserError(f"--goal={text}: a task of {family.name} is {family.task_dim} numbers, got {len(task)}")
        groups[EXPLICIT] = TaskBatch(np.array(request.tasks, np.float64), np.arange(len(request.tasks)))
    return groups


def adapt_to_tasks(
    learner: "PolicyLearner",
    parameters: Weights,
    tasks: TaskBatch,
    seed: int,
    phase: str,
    inner_updates: int,
    rollouts_per_task: int | None,
    report: Report,
) -> list[Batch]:
    """Real rollouts after 0 .. K inner updates on real data."""
    report(f"{len(tasks.tasks)} tasks, {inner_updates} updates")
    shard, collector = real_shard(
        learner, len(tasks.tasks), rollouts_per_task=rollouts_per_task, inner_updates=inner_updates, remember=True
    )
    shard.collect(parameters, tasks, seed, learner.iteration, phase=phase, keep=False)
    return collector.forget()


def per_task(batches: Sequence[Batch], num_tasks: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean return and length of every task's episodes, [K + 1, n] each; NaN-free: every task has an episode."""
    returns: list[np.ndarray] = []
    lengths: list[np.ndarray] = []
    for batch in batches:
        episodes = batch.episodes
        count = np.maximum(np.bincount(episodes.task, minlength=num_tasks), 1)
        for values, source in ((returns, episodes.episode_return), (lengths, episodes.length)):
            values.append(np.bincount(episodes.task, weights=source, minlength=num_tasks) / count)
    return np.stack(returns), np.stack(lengths)


def _per_task_finite(name: str, batches: Sequence[Batch], num_tasks: int) -> tuple[np.ndarray, np.ndarray]:
    """`per_task`; raises NonFiniteError."""
    returns, lengths = per_task(batches, num_tasks)
    if not np.isfinite(returns).all():
        raise NonFiniteError(f"a return on the tasks {name!r} is not finite")
    return returns, lengths


def final_table(learner: "PolicyLearner", report: Report) -> list[dict[str, Any]]:
    """Real returns of random actions, and of the untrained and the trained policy before and after adaptation."""
    tasks = draw_tasks(learner.family, _FINAL_TASKS, learner.seed, learner.iteration, "final/tasks")
    report("final table")
    rows = [random_row(learner, _FINAL_TASKS)]
    for name, parameters in (("untrained", learner.initial_parameters()), ("trained", learner.parameters)):
        batches = adapt_to_tasks(learner, parameters, tasks, learner.seed, "final", learner.inner_updates, None, report)
        returns, _ = per_task(batches, _FINAL_TASKS)
        rows += [{"policy": name, "fast_updates": k, **_interval(values)} for k, values in enumerate(returns)]
    return rows


def random_row(learner: Any, num_tasks: int) -> dict[str, Any]:
    """Real returns of uniformly random actions, as a row of a final table; of at most `MAX_COPIES` tasks."""
    num_tasks = min(num_tasks, MAX_COPIES)
    steps = num_tasks * learner.horizon
    batch = random_batch(
        learner.family,
        steps,
        steps,
        learner.horizon,
        learner.seed,
        exact=False,
        truncate=learner.stop_rule == "truncate",
        num_threads=learner.num_threads,
    )
    return row("random actions", None, batch, num_tasks)


def row(policy: str, fast_updates: int | None, batch: Batch, num_tasks: int) -> dict[str, Any]:
    """Mean return over tasks of a batch, as a row of a final table."""
    returns, _ = per_task([batch], num_tasks)
    return {"policy": policy, "fast_updates": fast_updates, **_interval(returns[0])}


def _interval(values: np.ndarray) -> dict[str, Any]:
    interval = mean_interval(values)
    return {"return": interval.mean, "return_low": interval.low, "return_high": interval.high, "tasks": len(values)}


def _pooled(name: str, returns: np.ndarray, lengths: np.ndarray) -> list[dict[str, Any]]:
    """One row per number of inner updates; gain is over the same task's return before adaptation."""
    rows = []
    for k, values in enumerate(returns):
        row: dict[str, Any] = {"task_set": name, "fast_updates": k, **_interval(values)}
        row |= {"gain": None, "gain_low": None, "gain_high": None}
        if k:
            gain = mean_interval(values - returns[0])
            row |= {"gain": gain.mean, "gain_low": gain.low, "gain_high": gain.high}
        rows.append(row | {"length": float(np.mean(lengths[k]))})
    return rows


def _task_rows(name: str, tasks: TaskBatch, returns: np.ndarray, lengths: np.ndarray) -> list[dict[str, Any]]:
    """One row per task: its first numbers, and a column per statistic and number of inner updates."""
    rows = []
    for index, task in enumerate(tasks.tasks):
        found: dict[str, Any] = {"task_set": name, "index": index}
        found |= {f"task_{i}": float(number) for i, number in enumerate(task[:_TASK_NUMBERS])}
        found |= {f"return_{k}": float(values[index]) for k, values in enumerate(returns)}
        found |= {f"length_{k}": float(values[index]) for k, values in enumerate(lengths)}
        rows.append(found)
    return rows


def _settings(learner: Any, seed: int, updates: int, rollouts: int, groups: Mapping[str, TaskBatch]) -> dict[str, Any]:
    return {
        "method": type(learner).__name__,
        "family": learner.family.name,
        "seed": seed,
        "fast_updates": updates,
        "rollouts_per_task": rollouts,
        "horizon": learner.horizon,
        "tasks": {name: len(tasks.tasks) for name, tasks in groups.items()},
        "confidence": CONFIDENCE,
    }
