"""Tries a sweep's configurations before its first run: gin knows the names of what it sets only after imports.

python -m metarl.experiment.sweep_check is the process that imports them, so that the sweep's own stays small; it
reads a request from its standard input and writes the mistake to its standard output.
"""

import json
import subprocess
import sys
from collections.abc import Sequence

from metarl.experiment.errors import UserError
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


def main() -> int:
    """Reads a request, writes the first configuration's mistake; returns 2 if every configuration has one, else 0."""
    from metarl.experiment import runtime

    request = json.load(sys.stdin)
    runtime.import_tensorflow()
    # What follows imports TensorFlow at some point, which is only silent from here on.
    from metarl.experiment import gin_front_door

    mistakes = []
    for bindings, seed in request["tried"]:
        try:
            gin_front_door.build(gin_front_door.parse(request["gin_files"], [*request["gin_params"], *bindings], seed))
        except UserError as error:
            mistakes.append(_as_swept(str(error), bindings))
        else:
            return 0
    sys.stdout.write(mistakes[0])
    return _MISTAKE


def _as_swept(message: str, bindings: Sequence[str]) -> str:
    """Names the flag that the user wrote: a run gets a swept value as a --gin_param."""
    for text in bindings:
        message = message.replace(f"--gin_param={text!r}", f"--sweep: {text!r}")
    return message


if __name__ == "__main__":
    sys.exit(main())
