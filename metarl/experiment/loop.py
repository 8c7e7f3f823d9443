"""The training loop: restore or start, one meta-update after the other, and a table at the end.

What is written when, so that a kill at any moment loses at most one checkpoint interval: the state before the first
meta-update is a checkpoint; a meta-update's metrics are written before the checkpoint that covers it; metrics beyond
the checkpoint that a run resumes from are dropped, because the same numbers will come again.
"""

import contextlib
import csv
import errno
import io
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from absl import logging

from metarl.experiment import checkpoints
from metarl.experiment.checkpoints import CheckpointStore
from metarl.experiment.console import Progress, Signals, StopNow
from metarl.experiment.errors import UserError
from metarl.experiment.experiment import Experiment
from metarl.experiment.learner import Learner, Metrics, NonFiniteError
from metarl.experiment.metrics import CsvWriter, TensorBoardWriter, Writer, aligned, plain_number
from metarl.experiment.run_directory import RunDirectory

SUCCESS, NOT_FINITE, DISK_REFUSED = 0, 1, 3
_DISK_REFUSES = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


def train(experiment: Experiment, run: RunDirectory, operative_config: str = "", flags: Iterable[str] = ()) -> int:
    """Trains until `experiment.iterations` are done, from the newest checkpoint if there is one.

    Args:
        experiment: as built; its learner is new.
        run: checked and acquired.
        operative_config: the gin text to keep with the run.
        flags: the command line to keep with the run.

    Returns:
        The process's exit code: 0 when the run is complete, 1 when a number was not finite, 3 when the disk is full
        or broken, 128 plus the number of the signal that stopped it.

    Raises:
        UserError: no checkpoint is readable, or the newest does not fit the learner.
    """
    store = CheckpointStore(run.path(checkpoints.FOLDER), experiment.keep_checkpoints)
    store.clean()
    fresh = not _restore(experiment.learner, store)
    if not fresh and experiment.learner.iteration >= experiment.iterations and _has_final_table(run, experiment):
        logging.info(
            "%s is finished: %d meta-updates, table in %s; raise ITERATIONS to go on",
            run.root, experiment.learner.iteration, run.path("final.csv"),
        )  # fmt: skip
        return SUCCESS
    progress = Progress(experiment.learner.iteration, experiment.iterations)
    session = _Session(experiment, run, store, progress)
    with Signals() as signals:
        try:
            run.describe(operative_config, flags, experiment.learner.iteration)
            if fresh:
                session.save()
            return session.train(signals) or session.finish(signals)
        except NonFiniteError as error:
            logging.error("%s", session.write_crash(error))
            return NOT_FINITE
        except OSError as error:
            if error.errno not in _DISK_REFUSES:
                raise
            logging.error("cannot write to %s: %s; the same command goes on from the last checkpoint", run.root, error)
            return DISK_REFUSED
        except StopNow:
            done = max(store.iterations(), default=0)
            logging.warning("stopped; the same command goes on after meta-update %d", done)
            return signals.exit_code
        finally:
            session.close()


class _Session:
    """The part of a run that one process does."""

    def __init__(self, experiment: Experiment, run: RunDirectory, store: CheckpointStore, progress: Progress):
        self._experiment = experiment
        self._learner = experiment.learner
        self._run = run
        self._store = store
        self._progress = progress
        self._metrics: Metrics = {}
        self._writers: list[Writer] = [
            CsvWriter(run.path("progress.csv")),
            TensorBoardWriter(run.path("tensorboard")),
        ]

    def train(self, signals: Signals) -> int:
        """Does the meta-updates that are left; returns the exit code, 0 if all are done."""
        experiment, learner = self._experiment, self._learner
        for writer in self._writers:
            writer.rewind(learner.iteration)
        while learner.iteration < experiment.iterations:
            self._metrics = {}
            self._metrics = learner.run_iteration(self._progress.report)
            _check_finite(self._metrics, "metric")
            self._write()
            self._progress.advance()
            logging.info("%d/%d  %s", learner.iteration, experiment.iterations, learner.summary_line(self._metrics))
            last = learner.iteration == experiment.iterations or signals.received is not None
            if last or learner.iteration % experiment.checkpoint_every == 0:
                self._progress.report("checkpoint")
                self.save()
            if signals.received is not None:
                logging.warning("stopped; the same command goes on after meta-update %d", learner.iteration)
                return signals.exit_code
        return SUCCESS

    def _write(self) -> None:
        every = self._experiment.figure_every
        due = every and (self._learner.iteration % every == 0 or self._learner.iteration == self._experiment.iterations)
        figures = self._learner.figures() if due else {}
        for writer in self._writers:
            writer.write(self._learner.iteration, self._metrics, figures)

    def save(self) -> None:
        """Saves the learner's state; raises NonFiniteError if it must not be saved."""
        arrays = self._learner.state()
        _check_finite(arrays, "array")
        for writer in self._writers:
            writer.sync()
        self._store.save(self._learner.iteration, arrays)

    def finish(self, signals: Signals) -> int:
        """Evaluates the trained learner and shows and writes the table; returns the exit code."""
        signals.at_once = True  # nothing is lost here: the last checkpoint is on disk
        rows = self._learner.final_table(self._progress.report)
        # The first column marks the run as finished, so that it is written even for a learner without a table.
        rows = [{"iteration": self._learner.iteration, **row} for row in rows or [{}]]
        for row in rows:
            _check_finite(row, "final table's")
        self._run.write_table("final.csv", rows)
        logging.info("after %d meta-updates:\n%s", self._learner.iteration, aligned(rows))
        return SUCCESS

    def write_crash(self, error: NonFiniteError) -> str:
        """Writes the evidence of a number that is not finite; returns the line that tells of it."""
        folder = self._run.path("crash")
        folder.mkdir(exist_ok=True)
        number = self._learner.iteration
        evidence = {name: np.asarray(array) for name, array in self._learner.crash_evidence().items()}
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **evidence)
        (folder / f"iteration_{number:08d}.npz").write_bytes(buffer.getvalue())
        described = {"error": str(error), "metrics": {name: _jsonable(value) for name, value in self._metrics.items()}}
        (folder / f"iteration_{number:08d}.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
        return f"meta-update {number}: {error}; the run is stopped, the evidence is in {folder}"

    def close(self) -> None:
        """Closes the files and the bar."""
        for writer in self._writers:
            with contextlib.suppress(OSError):  # on a full disk even closing fails; what counts was synced before
                writer.close()
        self._progress.close()


def _restore(learner: Learner, store: CheckpointStore) -> bool:
    """Brings the learner to the newest readable checkpoint; returns False if there is none."""
    checkpoint = store.restore()
    if checkpoint is None:
        return False
    learner.restore(checkpoint.arrays)
    if learner.iteration != checkpoint.iteration:
        raise UserError(f"{checkpoint.path} is of meta-update {checkpoint.iteration}, its state of {learner.iteration}")
    logging.info("resumed from %s", checkpoint.path)
    return True


def _has_final_table(run: RunDirectory, experiment: Experiment) -> bool:
    """Tells whether `final.csv` is of the learner's iteration; a continued run leaves that of a shorter one behind."""
    try:
        with run.path("final.csv").open(newline="", encoding="utf-8") as file:
            return next(csv.DictReader(file), {}).get("iteration") == str(experiment.learner.iteration)
    except FileNotFoundError:
        return False


def _check_finite(values: Mapping[str, Any], what: str) -> None:
    bad = [name for name, value in values.items() if value is not None and not _is_finite(value)]
    if bad:
        more = f" (and {len(bad) - 3} more)" if len(bad) > 3 else ""
        raise NonFiniteError(f"not finite: {what} {', '.join(bad[:3])}{more}")


def _is_finite(value: Any) -> bool:
    array = np.asarray(value)
    return array.dtype.kind not in "fc" or bool(np.isfinite(array).all())


def _jsonable(value: Any) -> Any:
    return None if value is None else plain_number(value) if math.isfinite(value) else str(value)
