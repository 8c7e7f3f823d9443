"""Tries a sweep's configurations before its first run, or compares them with those that its runs were built with.

gin knows the names of what it sets only after imports. They happen in a process of their own, so that the sweep's stays
small: python -m metarl.experiment.sweep_check reads a request from standard input and writes a mistake to standard
output.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from metarl.experiment.errors import UserError
from metarl.experiment.run_directory import RunDirectory
from metarl.experiment.sweeps import SweepRun

_MISTAKE = 2


def require_buildable(gin_files: Sequence[str], gin_params: Sequence[str], runs: Sequence[SweepRun]) -> None:
    """Builds configurations until one succeeds; a value that is wrong in some runs only is theirs to tell.

    Args:
        gin_files: of every run.
        gin_params: of every run.
        runs: planned; those that differ in nothing but the seed are tried once.

    Raises:
        UserError: none of them can be built; the line is that of the first. Nothing on disk was changed.
    """
    tried = {tuple(run.bindings): run.seed for run in reversed(runs)}  # a dictionary keeps the last: the first run
    request = {
        "gin_files": list(gin_files),
        "gin_params": list(gin_params),
        "tried": [[list(bindings), tried[bindings]] for bindings in dict.fromkeys(tuple(run.bindings) for run in runs)],
    }
    _ask(request)


def require_same(gin_files: Sequence[str], gin_params: Sequence[str], runs: Sequence[tuple[SweepRun, Path]]) -> None:
    """Compares configurations with those that runs were built with, by the rule for a run that is to be resumed.

    Args:
        gin_files: of every run.
        gin_params: of every run.
        runs: with their folders, which hold their operative configurations.

    Raises:
        UserError: one of them differs, or cannot be built any more. Nothing on disk was changed.
    """
    if not runs:
        return
    built = [[run.bindings, run.seed, str(path)] for run, path in runs]
    code = _ask({"gin_files": list(gin_files), "gin_params": list(gin_params), "built": built})
    if code:
        raise UserError(f"whether the runs there have this configuration cannot be told: the check ended with {code}")


def _ask(request: dict[str, Any]) -> int:
    """Returns the exit code of the process that imports what is configured; raises the mistake that it found."""
    done = subprocess.run(
        [sys.executable, "-m", "metarl.experiment.sweep_check"],
        input=json.dumps(request),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=False,
    )
    if done.returncode == _MISTAKE:
        raise UserError(done.stdout.strip())
    return done.returncode


def main() -> int:
    """Reads a request, writes the first mistake; returns 2 if there is one, else 0."""
    from metarl.experiment import runtime

    request = json.load(sys.stdin)
    runtime.import_tensorflow()
    # What follows imports TensorFlow at some point, which is only silent from here on.
    mistake = _first_difference(request) if "built" in request else _all_mistaken(request)
    sys.stdout.write(mistake)
    return _MISTAKE if mistake else 0


def _all_mistaken(request: dict[str, Any]) -> str:
    """Returns the first configuration's mistake if every one has one."""
    from metarl.experiment import gin_front_door

    mistakes = []
    for bindings, seed in request["tried"]:
        try:
            gin_front_door.build(gin_front_door.parse(request["gin_files"], [*request["gin_params"], *bindings], seed))
        except UserError as error:
            mistakes.append(_as_swept(str(error), bindings))
        else:
            return ""
    return mistakes[0]


def _first_difference(request: dict[str, Any]) -> str:
    """Returns how the first run that differs was built otherwise."""
    import gin

    from metarl.experiment import gin_front_door

    for bindings, seed, folder in request["built"]:
        try:
            config = gin_front_door.parse(request["gin_files"], [*request["gin_params"], *bindings], seed)
            experiment = gin_front_door.build(config)
            RunDirectory(folder).require_same(gin.operative_config_str(), config.bindings, experiment.may_change)
        except UserError as error:
            return _as_swept(str(error), bindings)
    return ""


def _as_swept(message: str, bindings: Sequence[str]) -> str:
    """Names the flag that the user wrote: a run gets a swept value as a --gin_param."""
    for text in bindings:
        message = message.replace(f"--gin_param={text!r}", f"--sweep: {text!r}")
    return message


if __name__ == "__main__":
    sys.exit(main())
