"""Testing a trained meta-policy: what is asked of a learner, and what becomes of its answer.

An evaluation reads a run, finished or going on, and writes nothing into it except a new folder under `evaluations/`:

per_task.csv        one row per task
pooled.csv          one row per task set and number of fast-updates
evaluation.json     the same pooled rows with the checkpoint, the settings, the versions and the steps used
"""

import json
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from absl import logging

from metarl.experiment import checks, saved_run
from metarl.experiment.errors import UserError
from metarl.experiment.learner import EvaluationRequest, EvaluationResult, NonFiniteError
from metarl.experiment.result_folder import require_writable, result_folder
from metarl.experiment.run_directory import RunDirectory, csv_text, versions, write_atomically
from metarl.experiment.saved_run import SavedRun

FOLDER = "evaluations"
PER_TASK, POOLED, SUMMARY = "per_task.csv", "pooled.csv", "evaluation.json"
_NOT_FINITE = 1


def parse_tasks(texts: Iterable[str], asked_by: str) -> tuple[tuple[float, ...], ...]:
    """Returns the numbers of tasks written as 'x,y'.

    Args:
        texts: one per task.
        asked_by: the flag, for the message.

    Raises:
        UserError: a part is not a finite number.
    """
    tasks = []
    for text in texts:
        try:
            tasks.append(tuple(checks.real(asked_by, float(part)) for part in text.split(",")))
        except (ValueError, UserError):
            raise UserError(f"{asked_by}={text}: must be finite numbers with commas, such as 0.5,-0.3") from None
    return tuple(tasks)


def run(
    directory: str | None,
    which: str,
    request: EvaluationRequest,
    *,
    output: str | None = None,
    allow_untrained: bool = False,
) -> int:
    """Evaluates the learner of a run as a checkpoint holds it; shows and writes the result.

    Args:
        directory: the run's folder; it may be in training.
        which: "latest", an iteration, or a checkpoint's path.
        request: what to evaluate.
        output: folder for the result; by default a new one under the run's `evaluations/`.
        allow_untrained: accept the state before the first meta-update.

    Returns:
        The exit code: 0, or 1 when a return was not finite (nothing is written then).

    Raises:
        UserError: a mistake in the arguments, the run or the checkpoint; nothing was written.
    """
    saved = saved_run.find(directory, which, allow_untrained=allow_untrained)
    _check_output(saved, output)
    learner = saved_run.build_learner(saved)
    with result_folder(saved, FOLDER, output) as folder:
        started = time.perf_counter()
        try:
            result = learner.evaluate(request, _show_phase)
        except NonFiniteError as error:
            sys.stderr.write(f"error: {error}; nothing was written\n")
            return _NOT_FINITE
        seconds = time.perf_counter() - started
        _write(saved, folder, result, seconds)
    logging.info("meta-update %d of %s\n%s", saved.checkpoint.iteration, saved.root, result.text)
    logging.info("%d environment steps in %.1f s; written to %s", result.env_steps, seconds, folder)
    return 0


def _show_phase(phase: str) -> None:
    logging.info("%s", phase)


def _check_output(saved: SavedRun, output: str | None) -> None:
    """Raises UserError if the result could not be written, or would go where it does not belong."""
    folder = RunDirectory(saved.root).path(FOLDER) if output is None else Path(output).expanduser()
    home = saved.root.resolve()
    if output is not None:
        target = folder.resolve()
        inside = target.is_relative_to(home) and not (target.is_relative_to(home / FOLDER) and target != home / FOLDER)
        if inside:
            raise UserError(
                f"--output={output} is inside the run; choose a folder under {saved.root / FOLDER}/ or outside"
            )
        taken = [name for name in (PER_TASK, POOLED, SUMMARY) if os.path.exists(folder / name)]
        if taken:
            raise UserError(f"--output={output} holds {taken[0]} already; choose another folder")
    require_writable(folder)


def _write(saved: SavedRun, folder: Path, result: EvaluationResult, seconds: float) -> None:
    """Writes the three files, the JSON last."""
    summary = {
        "run": str(saved.root),
        "checkpoint": str(saved.checkpoint.path),
        "iteration": saved.checkpoint.iteration,
        **result.settings,
        "notes": result.notes,
        "env_steps": result.env_steps,
        "seconds": round(seconds, 3),
        "versions": versions(),
        "trained_with": saved.trained_with,
        "pooled": result.pooled,
    }
    try:
        write_atomically(folder / PER_TASK, csv_text(result.per_task))
        write_atomically(folder / POOLED, csv_text(result.pooled))
        write_atomically(folder / SUMMARY, json.dumps(summary, indent=2, allow_nan=False) + "\n")
    except OSError as error:
        raise UserError(f"cannot write the result: {error}") from error
