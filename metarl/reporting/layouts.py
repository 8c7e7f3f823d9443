"""Which curves of which runs make a figure: any column against any other, and the two papers' figures."""

import functools
import re
from collections.abc import Sequence

import numpy as np
from absl import logging

from metarl.experiment.errors import UserError, did_you_mean
from metarl.reporting import intervals, runs
from metarl.reporting.panels import Curve, FigurePlan, Panel
from metarl.reporting.runs import Run

LAYOUTS = ("columns", "tesp", "mbmpo")
IDLE_FLAGS = {"tesp": ("x", "y"), "mbmpo": ("x", "y", "statistic", "points")}  # those that a layout has no use for
_X_NAMES = {
    "env_steps": ("env_steps/counted", "env_steps/total"),
    "iteration": ("iteration",),
    "time": ("time/iteration", "time/meta_update"),
}
_X_LABELS = {"env_steps": "environment steps", "iteration": "iterations", "time": "training time, seconds"}
_META_UPDATES = "meta-updates"
_SEVERAL_UPDATES = "time/iteration"  # measured where an iteration may hold more, or other, updates than one meta-update
_Y_NAMES = ("pre_update/return", "real/return", "return")  # MB-MPO specification, section 9.7
_SETS = {"train": "D", "test_1": "D′", "test_2": "D″"}
_VALIDATION = re.compile(r"validation_(\w+)/return_(\d+)")
_FAST_UPDATE = re.compile(r"return/fast_update_(\d+)")
_MODEL_FREE_STEPS, _MODEL_BASED_END, _MODEL_FREE_END = 10_000, 4e5, 1e7
_STEP_SIZES = ("INNER_LR", "InnerAdaptation.inner_lr")  # what MB-MPO's is called: the macro, which may be absent
_PAPER_STEP_SIZE = 0.001


def columns(found: Sequence[Run], x: str, y: Sequence[str], group_by: Sequence[str], points: int) -> FigurePlan:
    """A panel per environment and column; rows are environments, if there are several columns.

    Args:
        found: the runs.
        x: 'env_steps', 'iteration', 'time', or a column.
        y: columns, or 'return' for the one that says it best; a run without one is left out.
        group_by: names of settings.
        points: at most so many per curve.

    Raises:
        UserError: no run has a column.
    """
    rows = []
    x_names, x_label = _X_NAMES.get(x, (x,)), _X_LABELS.get(x, x)
    if x == "iteration" and not any(_SEVERAL_UPDATES in run.columns for run in found):
        x_label = _META_UPDATES
    for family, members in _families(found).items():
        row = []
        for name in y:
            wanted = _y_columns(found, name)
            having = _having(members, {name: wanted, " or ".join(x_names): x_names})
            if not having:
                continue
            curves = []
            for label, group in runs.group(having, group_by).items():
                pairs = [_pair(run, x, wanted) for run in group]
                curve = _curve(label, group, pairs, points)
                if curve is not None:
                    curves.append(curve)
            label = " or ".join(dict.fromkeys(_first(run, wanted) or "" for run in having))
            row.append(Panel(family, x_label, label, curves, integer_x=x == "iteration"))
        if row:
            rows.append(row)
    _require(any(panel.curves for row in rows for panel in row), f"no run has a row with {' or '.join(y)} and {x}")
    panels = [panel for row in rows for panel in row]
    return FigurePlan(_file_name("_".join(y), "vs", x), _grid(panels) if len(y) == 1 else rows)


def check_columns(found: Sequence[Run], x: str, y: Sequence[str]) -> None:
    """Raises UserError if no run has one of the columns; names the nearest."""
    if x not in _X_NAMES:
        _require_column(found, x, "--x", _X_NAMES)
    elif not any(_first(run, _X_NAMES[x]) for run in found):
        raise UserError(f"--x={x}: no run has a column {' or '.join(_X_NAMES[x])}")
    for name in y:
        _y_columns(found, name)


def tesp(found: Sequence[Run], group_by: Sequence[str], points: int) -> list[FigurePlan]:
    """The paper's two figures: return on D, D', D'' against meta-updates, and against the number of fast-updates.

    The first shows the validation after all fast-updates; the second every run's last validation, or, of a run
    without validation, the table at its end. Rows are environments.

    Raises:
        UserError: no run has either.
    """
    against_updates, against_fast = [], []
    for family, members in _families(found).items():
        updates, fast = [], []
        for goal_set, symbol in _SETS.items():
            title = f"{family}, {symbol}"
            curves, fast_curves = [], []
            for label, group in runs.group(members, group_by).items():
                validated = [run for run in group if _validation_columns(run, goal_set)]
                pairs = []
                for run in validated:
                    iteration, value = run.read(["iteration", _validation_columns(run, goal_set)[-1]])
                    pairs.append((iteration, value))
                curve = _curve(label, validated, pairs, points)
                if curve is not None:
                    curves.append(curve)
                series = [(run, values) for run in group if len(values := _by_fast_update(run, goal_set))]
                curve = _curve(
                    label,
                    [run for run, _ in series],
                    [(np.arange(len(values), dtype=float), values) for _, values in series],
                    points,
                )
                if curve is not None:
                    fast_curves.append(curve)
            y_label = "return after all fast-updates"
            if curves:
                updates.append(Panel(title, _META_UPDATES, y_label, curves, integer_x=True))
            if fast_curves:
                fast.append(Panel(title, "fast-updates", "return", fast_curves, integer_x=True, markers=True))
        against_updates += [updates] if updates else []
        against_fast += [fast] if fast else []
    _require(against_fast, "--layout=tesp: no run has columns validation_<set>/return_<k>, or a table of its goal sets")
    plans = [FigurePlan("tesp_meta_updates", against_updates)] if against_updates else []
    return [*plans, FigurePlan("tesp_fast_updates", against_fast)]


def mbmpo(found: Sequence[Run], group_by: Sequence[str]) -> list[FigurePlan]:
    """The paper's learning curves (MB-MPO specification, section 9.7): model-based methods, and model-free ones.

    The first measured of three returns against the counted steps. MB-MPO's steps are shifted left by half of the first
    gap, model-free ones floored to multiples of 10,000; values at equal steps are pooled. Grouped by method, MB-MPO's
    runs in an environment are those with the paper's inner step size; if there are none, they are grouped by it, too.
    In the model-free figure a dashed line goes on at the best mean of each model-based curve.

    Raises:
        UserError: no run has such columns.
    """
    wanted = {" or ".join(names): names for names in (_Y_NAMES, _X_NAMES["env_steps"])}
    chosen = _having(found, wanted)
    _require(chosen, f"--layout=mbmpo: no run has a column {' and a column '.join(wanted)}")
    based, free = [], []
    for family, members in _families(chosen).items():
        groups = _groups(members, group_by)
        model_based = {label: model_based for label, group in groups.items() if (model_based := _model_based(group))}
        curves = _pooled_curves(model_based, _MODEL_BASED_END)
        if curves:
            based.append(Panel(family, _X_LABELS["env_steps"], "return", curves))
        if model_based != groups:
            curves = _pooled_curves(groups, _MODEL_FREE_END, positive=True)
            best = {c.label: float(np.max(c.summary.mean)) for c in curves if c.label in model_based}
            panel = Panel(family, _X_LABELS["env_steps"], "return", curves, log_x=True, x_end=_MODEL_FREE_END)
            panel.reference_lines = best
            if curves:
                free.append(panel)
    _require(based or free, "--layout=mbmpo: no run has enough steps, or a row, to be drawn")
    plans = [FigurePlan("mbmpo_model_based", _grid(based), band="std")] if based else []
    return plans + ([FigurePlan("mbmpo_model_free", _grid(free), band="std")] if free else [])


def _groups(members: list[Run], group_by: Sequence[str]) -> dict[str, list[Run]]:
    """Groups an environment's runs; by method, never different step sizes of MB-MPO together."""
    if list(group_by) != ["method"]:
        return runs.group(members, group_by)
    ours = [run for run in members if run.method == "MB-MPO"]
    others = [run for run in members if run not in ours]
    kept = [run for run in ours if _step_size(run) == _PAPER_STEP_SIZE]
    if not ours or len({_step_size(run) for run in ours}) == 1:
        return runs.group(members, group_by)
    name = next((name for name in _STEP_SIZES if all(name in run.settings for run in ours)), _STEP_SIZES[-1])
    if kept:
        told = "%s: left out %d runs of MB-MPO whose step size is not the paper's %g; --group_by=%s shows them"
        logging.info(told, ours[0].family, len(ours) - len(kept), _PAPER_STEP_SIZE, name)
        return runs.group([run for run in members if run in others or run in kept], group_by)
    told = "%s: no run of MB-MPO has the paper's step size %g; they are grouped by %s"
    logging.info(told, ours[0].family, _PAPER_STEP_SIZE, name)
    return runs.group(ours, ["method", name]) | runs.group(others, group_by)


def _step_size(run: Run) -> float | str | None:
    text = next((run.settings[name] for name in reversed(_STEP_SIZES) if name in run.settings), None)
    try:
        return None if text is None else float(text)
    except ValueError:
        return text


def _pooled_curves(groups: dict[str, list[Run]], end: float, positive: bool = False) -> list[Curve]:
    curves = []
    for label, group in groups.items():
        steps, returns = [], []
        for run in group:
            x_name, y_name = _first(run, _X_NAMES["env_steps"]), _first(run, _Y_NAMES)
            x, y = run.read([x_name or "", y_name or ""])
            x, y = x[~np.isnan(y)], y[~np.isnan(y)]
            if run.method == "MB-MPO" and len(x) > 1:
                x = x - (x[1] - x[0]) / 2
            elif not _is_model_based(run):
                x = np.floor(x / _MODEL_FREE_STEPS) * _MODEL_FREE_STEPS
            shown = (x <= end) & ((x > 0) | (not positive))  # a logarithmic axis has no 0
            steps.append(x[shown])
            returns.append(y[shown])
        at, summary = intervals.pooled(np.concatenate(steps), np.concatenate(returns))
        if len(at):
            curves.append(Curve(label, len(group), at, summary))
    return curves


def _model_based(group: list[Run]) -> list[Run]:
    return [run for run in group if _is_model_based(run)]


def _is_model_based(run: Run) -> bool:
    return "env_steps/counted" in run.columns


def _grid(panels: list[Panel], width: int = 3) -> list[list[Panel]]:
    return [panels[i : i + width] for i in range(0, len(panels), width)]


def _families(found: Sequence[Run]) -> dict[str, list[Run]]:
    families: dict[str, list[Run]] = {}
    for run in found:
        families.setdefault(run.family, []).append(run)
    return dict(sorted(families.items()))


def _first(run: Run, names: Sequence[str]) -> str | None:
    """Returns the first of the columns that the run has, of several one with a number if there is one."""
    found = [name for name in names if name in run.columns]
    if len(found) < 2:
        return found[0] if found else None
    return next((name for name in found if _measured(run, name)), found[0])


@functools.lru_cache(maxsize=4096)
def _measured(run: Run, name: str) -> bool:
    """Whether a column holds a number: without evaluation its columns are there all the same, and empty."""
    return not np.isnan(run.read([name])[0]).all()


def _having(found: Sequence[Run], wanted: dict[str, tuple[str, ...]]) -> list[Run]:
    """Returns the runs that have one of the columns of every item; warns of what the others lack, by its key."""
    having = []
    for run in found:
        lacking = [what for what, names in wanted.items() if not _first(run, names)]
        if lacking:
            logging.warning("left out: %s has no column %s", run.path, ", nor ".join(lacking))
        else:
            having.append(run)
    return having


def _y_columns(found: Sequence[Run], name: str) -> tuple[str, ...]:
    """Returns what `name` stands for: itself if some run has it.

    'return' is the first measured of section 9.7's three columns, then TESP's return after the last fast-update.
    """
    numbers = {int(match[1]) for run in found for column in run.columns if (match := _FAST_UPDATE.fullmatch(column))}
    fast_updates = tuple(f"return/fast_update_{k}" for k in sorted(numbers, reverse=True))
    wanted = (*_Y_NAMES, *fast_updates) if name == "return" else (name,)
    if not any(_first(run, wanted) for run in found):
        _require_column(found, name, "--y", ("return",))
    return wanted


def _require_column(
    found: Sequence[Run], name: str, flag: str, more: Sequence[str] | dict[str, tuple[str, ...]]
) -> None:
    known = dict.fromkeys(column for run in found for column in run.columns)
    if name not in known:
        ends = [column for column in known if column.rsplit("/", 1)[-1] == name]
        hint = f"; did you mean {ends[0]!r}?" if ends else did_you_mean(name, [*known, *more])
        raise UserError(f"{flag}: no run has a column {name!r}{hint or '; there are ' + ', '.join(list(known)[:8])}")


def _pair(run: Run, x: str, wanted: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    at, value = run.read([_first(run, _X_NAMES.get(x, (x,))) or "", _first(run, wanted) or ""])
    return (np.cumsum(np.nan_to_num(at)) if x == "time" else at), value


def _curve(label: str, group: Sequence[Run], pairs: list[tuple[np.ndarray, np.ndarray]], points: int) -> Curve | None:
    """Returns a group's curve; runs of one configuration are one stratum of the bootstrap. None without any value."""
    having = [(run, pair) for run, pair in zip(group, pairs, strict=True) if not np.isnan(pair[1] + pair[0]).all()]
    if not having:
        return None
    grid, values = intervals.align([pair for _, pair in having], points)
    _, strata = np.unique([run.configuration for run, _ in having], return_inverse=True)
    return Curve(label, len(having), grid, intervals.summarise(values, strata))


def _validation_columns(run: Run, goal_set: str) -> list[str]:
    """Returns the columns of the returns after 0 .. K fast-updates on a goal set."""
    numbered = {}
    for column in run.columns:
        match = _VALIDATION.fullmatch(column)
        if match and match[1] == goal_set:
            numbered[int(match[2])] = column
    return [numbered[k] for k in sorted(numbered)]


def _by_fast_update(run: Run, goal_set: str) -> np.ndarray:
    """Returns the newest returns after 0 .. K fast-updates, or an empty array."""
    names = _validation_columns(run, goal_set)
    if names:
        values = np.stack(run.read(names))
        measured = np.flatnonzero(~np.isnan(values).any(axis=0))
        if len(measured):
            return values[:, measured[-1]]
    for row in run.final_rows():
        if row.get("goal_set") == goal_set:
            after = [name for name in row if name and re.fullmatch(r"fast_update_\d+", name)]
            try:
                return np.array([float(row[name]) for name in after if row[name]])
            except ValueError as error:
                raise UserError(f"{run.path}: a return in its final table is not a number") from error
    return np.array([])


def _file_name(*parts: str) -> str:
    return "_".join(re.sub(r"[^A-Za-z0-9]+", "_", part).strip("_") for part in parts)[:120]


def _require(condition: object, message: str) -> None:
    if not condition:
        raise UserError(message)
