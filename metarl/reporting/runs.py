"""Run folders as a plot sees them: what was configured, read without executing it, and the columns measured."""

import csv
import functools
import glob
import os
import re
import tokenize
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from absl import logging

from metarl.experiment import gin_bindings
from metarl.experiment.errors import UserError, did_you_mean
from metarl.experiment.experiment import changes_no_result
from metarl.experiment.gin_bindings import MACRO
from metarl.experiment.gin_front_door import RUNTIME

_CONFIG, _TABLE, _FINAL = "operative_config.gin", "progress.csv", "final.csv"
_IDENTITY = re.compile(r"^(SEED|ITERATIONS) = .*\n", re.MULTILINE)
_NAMES = {
    "MBMPO": "MB-MPO",
    "METRPO": "ME-TRPO",
    "MBMPC": "MB-MPC",
    "MetaSGD": "Meta-SGD",
    "TESPAdaptivePolicy": "TESP, policy adapted",
}


class Run:
    """A run's folder.

    Attributes:
        path: the folder.
        columns: of its progress.csv.
        configuration: a label that runs share which differ in nothing but seed, length, threads, and what any run may
            be resumed with other values of. What only some learner lets change is not known without executing it.
        settings: the text of every macro and binding, and of 'method', 'family', 'seed' and 'folder'.
    """

    def __init__(self, path: Path):
        self.path = path
        text = (path / _CONFIG).read_text(encoding="utf-8", errors="replace")
        try:
            settings, self.configuration = _settings(_IDENTITY.sub("", text))
        except (SyntaxError, ValueError, StopIteration, tokenize.TokenError) as error:
            raise UserError(f"{path / _CONFIG} cannot be read: it is not valid gin") from error
        changed = {line.split(" = ")[0]: line.split(" = ", 1)[1].strip() for line in _lines(text)}
        self.settings = settings | changed | {"folder": path.name}
        if "SEED" in changed:
            self.settings["seed"] = changed["SEED"]
        try:
            with (path / _TABLE).open(newline="", encoding="utf-8", errors="replace") as file:
                self.columns = next(csv.reader(file), [])
        except csv.Error as error:
            raise UserError(f"{path / _TABLE} cannot be read: it is not a table") from error

    @property
    def method(self) -> str:
        """The method as the papers write it."""
        return self.settings.get("method", "?")

    @property
    def family(self) -> str:
        """The environment."""
        return self.settings.get("family", "?")

    def read(self, names: Sequence[str]) -> list[np.ndarray]:
        """Returns columns; NaN for an empty cell, and nothing of a row that is still being written.

        Raises:
            UserError: a cell is not a number.
        """
        path = self.path / _TABLE
        where = [self.columns.index(name) for name in names]
        found: list[list[float]] = [[] for _ in names]
        pairs = list(zip(found, where, strict=True))
        with path.open(encoding="utf-8", errors="replace") as file:
            next(file)
            for line in file:
                cells = line.rstrip("\n").split(
                    ","
                )  # only numbers: nothing is quoted, and csv would take 5 times as long
                if len(cells) != len(self.columns) or not line.endswith("\n"):
                    continue
                try:
                    for values, index in pairs:
                        values.append(float(cells[index] or "nan"))
                except ValueError as error:
                    raise UserError(f"{path}: a cell is not a number in the row {line[:40]!r}...") from error
        return [np.array(values, np.float64) for values in found]

    def final_rows(self) -> list[dict[str, str]]:
        """Returns the table at the end of the run, or [] before that."""
        try:
            with (self.path / _FINAL).open(newline="", encoding="utf-8", errors="replace") as file:
                return list(csv.DictReader(file))
        except FileNotFoundError:
            return []
        except csv.Error as error:
            raise UserError(f"{self.path / _FINAL} cannot be read: it is not a table") from error


def _lines(text: str) -> list[str]:
    return [found[0] for found in _IDENTITY.finditer(text)]


@functools.cache
def _settings(text: str) -> tuple[dict[str, str], str]:
    """Reads a configuration without its seed, so that the runs of one configuration are read once.

    Returns:
        The settings, and the configuration's label.
    """
    bindings = gin_bindings.read(text)
    found: dict[str, str] = {key.scope: repr(value) for key, value in bindings.items() if key.selector == MACRO}
    resolved = gin_bindings.without_macros(bindings)
    owners = [key.owner for key in resolved]
    for key, value in resolved.items():
        found[str(key)] = value
        if owners.count(key.owner) == 1:
            found[key.owner] = value
    learner = short(found.get("Experiment.learner", "?"))
    method = short(found.get(f"{learner}.method", learner.removesuffix("Learner")))
    family = short(found.get(f"{learner}.family", "?"))
    family = short(found.get(f"{family}.family", family))  # what a wrapper such as FixedGoal wraps
    telling = {key: value for key, value in resolved.items() if key.selector != RUNTIME and not changes_no_result(key)}
    label = "\n".join(f"{'/'.join(key)} = {telling[key]}" for key in sorted(telling))
    return found | {"method": _NAMES.get(method, method), "family": family}, label


def short(value: str) -> str:
    """Returns 'Name' for '@module.Name()', and other text as it is."""
    found = re.fullmatch(r"@[\w./]*?(\w+)(\(\))?", value)
    return found[1] if found else value


def find(patterns: Iterable[str]) -> list[Run]:
    """Returns the runs that folders or globs name: a run itself, or every run below, each once, in order of path.

    Raises:
        UserError: a pattern names nothing, or nothing named is a run.
    """
    folders: dict[Path, None] = {}
    for pattern in patterns:
        matched = [pattern] if os.path.isdir(pattern) else sorted(glob.glob(pattern, recursive=True))
        below = [path for name in matched if os.path.isdir(name) for path in _runs_below(name)]
        if not matched:
            parent = Path(pattern).parent
            near = [path.name for path in parent.iterdir() if path.is_dir()] if parent.is_dir() else []
            raise UserError(f"there is no folder {pattern!r}{did_you_mean(Path(pattern).name, near)}")
        if not below:
            raise UserError(f"{pattern} holds no run: no folder with {_CONFIG} and {_TABLE}")
        folders |= dict.fromkeys(path.resolve() for path in below)
    runs = []
    for path in folders:
        try:
            run = Run(path)
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}") from error
        if run.columns:
            runs.append(run)
        else:
            logging.warning("left out: %s has no rows yet", path)
    if not runs:
        raise UserError("none of these runs has rows yet")
    return runs


def _runs_below(root: str) -> list[Path]:
    found = []
    for folder, names, files in os.walk(root):
        if _CONFIG in files and _TABLE in files:
            found.append(Path(folder))
            names.clear()
        names[:] = sorted(name for name in names if not name.startswith("."))
    return found


def check_names(runs: Sequence[Run], names: Iterable[str], asked_by: str) -> None:
    """Raises UserError for a macro or binding that no run has; names the nearest that one has."""
    for name in names:
        if not any(name in run.settings for run in runs):
            known = dict.fromkeys(key for run in runs for key in run.settings)
            raise UserError(f"{asked_by}: no run has a macro or binding {name!r}{did_you_mean(name, known)}")


def where(runs: Sequence[Run], conditions: Iterable[str]) -> list[Run]:
    """Returns the runs that fulfil every 'NAME=value'.

    Raises:
        UserError: a condition is malformed, no run has the name, or no run is left.
    """
    chosen = list(runs)
    for condition in conditions:
        written, equals, wanted = condition.partition("=")
        name = written.strip()
        if not equals:
            raise UserError(f"--where={condition!r} is not NAME=value")
        check_names(runs, [name], "--where")
        values = [run.settings.get(name) for run in chosen]
        left = [run for run, value in zip(chosen, values, strict=True) if value is not None and _same(value, wanted)]
        if not left:
            have = ", ".join(sorted({short(value) for value in values if value is not None})) or "not set"
            raise UserError(f"--where={condition}: no run is so; {name} is {have}")
        chosen = left
    return chosen


def _same(value: str, wanted: str) -> bool:
    wanted = wanted.strip()
    try:
        return float(value) == float(wanted)
    except ValueError:
        return wanted in (value, short(value), value.strip("'\""))


def group(runs: Sequence[Run], names: Sequence[str]) -> dict[str, list[Run]]:
    """Returns the runs by what they have in common, numbers in their order; labels as a legend shows them.

    Args:
        runs: to be grouped.
        names: 'method', 'family', macros or bindings; a run without one of them has it as "none".
    """
    grouped: dict[tuple[str | None, ...], list[Run]] = {}
    for run in runs:
        grouped.setdefault(tuple(run.settings.get(name) for name in names), []).append(run)

    def label(values: tuple[str | None, ...], shown: Callable[[str], str]) -> str:
        parts = []
        for name, value in zip(names, values, strict=True):
            text = "none" if value is None else shown(value)
            parts.append(text if name in ("method", "family", "folder") else f"{name} = {text}")
        return ", ".join(parts)

    keys = sorted(grouped, key=lambda key: [_order(value) for value in key])
    brief = [label(values, short) for values in keys]
    unlike = len(set(brief)) == len(brief)  # @a.Name() and @b.Name() are both 'Name' in short
    return {text if unlike else label(key, str): grouped[key] for key, text in zip(keys, brief, strict=True)}


def _order(value: str | None) -> tuple[int, float, str]:
    try:
        return (0, float(value or "x"), "")
    except ValueError:
        return (1, 0.0, value or "")
