"""Runs what `sweeps` planned: one process per run, some at once, each in its own folder and with its own log."""

import contextlib
import datetime
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from types import FrameType
from typing import Any

from tqdm import tqdm

from metarl.experiment.console import StopCounter
from metarl.experiment.errors import UserError
from metarl.experiment.run_directory import RunDirectory
from metarl.experiment.sweep_index import LOGS, STATE_FILE, SweepIndex, last_line
from metarl.experiment.sweep_processes import Launcher, Process
from metarl.experiment.sweeps import FAILED, FINISHED, INTERRUPTED, RUNNING, SweepRun

SUCCESS, UNFINISHED = 0, 1
_STOPPED_BY_SIGNAL = (128 + signal.SIGINT, 128 + signal.SIGTERM)
_STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_TICK = 0.05  # seconds between two looks at the processes


class _StopRequests:
    """While entered, counts SIGTERM, Ctrl-C and a closed terminal instead of letting them end the process."""

    def __init__(self) -> None:
        self.number = signal.SIGTERM
        self._requests = StopCounter()
        self._before: dict[int, Any] = {}

    @property
    def count(self) -> int:
        """How often stopping was asked for."""
        return self._requests.count

    def __enter__(self) -> "_StopRequests":
        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
            for number in _STOPPING:
                if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup does
                    self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, _: FrameType | None) -> None:
        if not self._requests.receive():
            return
        self.number = signal.Signals(number)
        told = {
            1: b"\nstopping every run after its meta-update (once more: at once, back to the last checkpoint)\n",
            2: b"\nstopping every run at once (once more: kill them)\n",
        }
        with contextlib.suppress(OSError):  # the terminal may be closed
            os.write(2, told.get(self.count, b"\nkilling every run\n"))


def train_command(index: SweepIndex, gin_files: Sequence[str], gin_params: Sequence[str], run: SweepRun) -> list[str]:
    """Returns the command that trains, or resumes, a run of the sweep."""
    return [
        sys.executable,
        "-m",
        "launchers.train",
        *(f"--gin_file={name}" for name in gin_files),
        *(f"--gin_param={text}" for text in (*gin_params, *run.bindings)),
        f"--seed={run.seed}",
        f"--logdir={index.run_path(run).absolute()}",
    ]


def run_sweep(
    index: SweepIndex, gin_files: Sequence[str], gin_params: Sequence[str], launcher: Launcher, jobs: int
) -> int:
    """Runs every run that is not finished, and keeps the index; the same call later goes on where this one stopped.

    Args:
        index: of the sweep.
        gin_files: of every run.
        gin_params: of every run.
        launcher: starts the processes.
        jobs: processes at once.

    Returns:
        0 only if every run is finished; 128 plus the number of the signal that stopped the sweep; else 1: a run failed,
        or something else interrupted it.

    Raises:
        UserError: another sweep works in the folder, or it cannot be written to; the runs were stopped before.
    """
    index.directory.acquire()
    try:
        index.load()  # another sweep may have come and gone since the first look
        try:
            index.directory.path(LOGS).mkdir(exist_ok=True)
            index.write()
            return _Session(index, gin_files, gin_params, launcher, jobs).run()
        except OSError as error:
            raise UserError(f"cannot write to {index.root}: {error}; the same command goes on") from error
    finally:
        index.directory.release()


class _Session:
    """The part of a sweep that one process does."""

    def __init__(
        self, index: SweepIndex, gin_files: Sequence[str], gin_params: Sequence[str], launcher: Launcher, jobs: int
    ):
        self._index, self._launcher, self._jobs = index, launcher, jobs
        self._gin_files, self._gin_params = gin_files, gin_params
        self._waiting = [run for run in index.runs if run.state != FINISHED]
        self._active: list[tuple[SweepRun, Process]] = []
        self._begun: set[str] = set()  # the folders of the active runs whose processes have begun
        self._told: set[str] = set()  # the folders of runs that others train, once they were named
        self._redrawn = time.monotonic()
        done = len(index.runs) - len(self._waiting)
        self._bar = tqdm(
            total=len(index.runs), initial=done, unit="run", disable=None, file=sys.stderr, dynamic_ncols=True
        )
        if done:
            self._say(f"{done} of {len(index.runs)} runs are finished already")

    def run(self) -> int:
        passed_on = 0
        with _StopRequests() as stop:
            try:
                while self._active or (self._waiting and not stop.count):
                    while self._waiting and len(self._active) < self._jobs and not stop.count:
                        run = self._next()
                        if run is None:
                            break
                        self._start(run)
                    if stop.count > passed_on:
                        passed_on = stop.count
                        self._signal(signal.SIGTERM if passed_on <= 2 else signal.SIGKILL)
                    if not self._collect(stopping=bool(stop.count)):
                        time.sleep(_TICK)
                        self._keep_the_clock()
            finally:
                self._end_all()
                self._bar.close()
            return self._summary(stop)

    def _next(self) -> SweepRun | None:
        """Takes the first waiting run that nobody trains: a sweep that was killed leaves its processes at work."""
        for run in self._waiting:
            holder = RunDirectory(self._index.run_path(run)).holder()
            if holder is None:
                self._waiting.remove(run)
                return run
            if run.folder not in self._told:
                self._told.add(run.folder)
                self._say(f"waiting    {run.label}  is being trained by {holder}")
        return None

    def _start(self, run: SweepRun) -> None:
        self._index.write()  # nothing starts that could not be recorded
        command = train_command(self._index, self._gin_files, self._gin_params, run)
        process = self._launcher.start(command, self._index.log_path(run))
        self._active.append((run, process))
        if process.begun():
            self._begin(run)
            self._index.write()
        self._show()

    def _begin(self, run: SweepRun) -> None:
        """Until here a run is what it was before: it may wait for a place on a cluster."""
        self._begun.add(run.folder)
        run.state, run.exit_code, run.message = RUNNING, None, ""
        run.started, run.finished = _now(), ""

    def _collect(self, *, stopping: bool) -> bool:
        """Takes in the runs that began or ended; returns whether there were any."""
        codes = [(run, process, process.poll()) for run, process in self._active]
        began = [run for run, process, _ in codes if run.folder not in self._begun and process.begun()]
        for run in began:
            self._begin(run)
        ended = [(run, process, code) for run, process, code in codes if code is not None]
        for run, process, code in ended:
            self._active.remove((run, process))
            if run.folder in self._begun or not stopping:
                self._end(run, code, stopping=stopping)
            self._begun.discard(run.folder)
        if began or ended:
            self._index.write()
            self._show()
        return bool(began or ended)

    def _end(self, run: SweepRun, code: int, *, stopping: bool) -> None:
        run.exit_code, run.finished = code, _now()
        if run.folder not in self._begun:
            run.started = ""
        stopped = code in _STOPPED_BY_SIGNAL or (stopping and code < 0)
        run.state = FINISHED if code == 0 else INTERRUPTED if stopped else FAILED
        log = self._index.log_path(run)
        if run.state == FINISHED:
            seconds = (_time(run.finished) - _time(run.started)).total_seconds()
            self._say(f"finished   {run.label}  {seconds:.0f} s  {self._index.run_path(run)}")
            self._bar.update()
        elif run.state == INTERRUPTED:
            self._say(f"interrupted  {run.label}")
        else:
            run.message = (last_line(log) if run.folder in self._begun else "") or _ended_by(code)
            self._say(f"FAILED     {run.label}  exit code {code}: {run.message}  ({log})")

    def _signal(self, number: int) -> None:
        for _, process in self._active:
            process.signal(number)

    def _end_all(self) -> None:
        """What is left when the sweep itself breaks: nothing may go on training unseen."""
        if self._active:
            self._signal(signal.SIGTERM)
            for _, process in self._active:
                while process.poll() is None:
                    time.sleep(_TICK)
        self._launcher.close()

    def _summary(self, stop: _StopRequests) -> int:
        runs = self._index.runs
        counts = {state: sum(run.state == state for run in runs) for state in dict.fromkeys(r.state for r in runs)}
        told = ", ".join(f"{count} {state}" for state, count in counts.items())
        self._say(f"{len(runs)} runs: {told}; {self._index.root / 'index.csv'}")
        if stop.count:
            self._say("stopped; the same command goes on")
            return 128 + stop.number
        if counts.get(INTERRUPTED):
            self._say(f"{counts[INTERRUPTED]} interrupted by something other than this sweep; the same command goes on")
        return SUCCESS if counts.get(FINISHED) == len(runs) else UNFINISHED

    def _keep_the_clock(self) -> None:
        """Redraws the bar once a second, because runs end far apart."""
        if time.monotonic() - self._redrawn > 1.0:
            self._redrawn = time.monotonic()
            self._bar.refresh()

    def _show(self) -> None:
        failed = sum(run.state == FAILED for run in self._index.runs)
        queued = len(self._active) - len(self._begun)
        counts = {"running": len(self._begun), "queued": queued, "failed": failed}
        told = [f"{count} {name}" for name, count in counts.items() if count or name == "running"]
        self._bar.set_postfix_str(", ".join(told))

    def _say(self, line: str) -> None:
        tqdm.write(line, file=sys.stderr)


def describe(index: SweepIndex) -> str:
    """Returns what `--dry_run` shows: every run with its state and folder."""
    states = [RUNNING if index.is_running(run) else run.state for run in index.runs]
    lines = [
        f"{state:<11}  {run.label}  {index.run_path(run)}\n" for state, run in zip(states, index.runs, strict=True)
    ]
    left = sum(state != FINISHED for state in states)
    there = "" if (index.root / STATE_FILE).is_file() else " (new)"
    holder = index.directory.holder()
    now = f"; {holder} is at work there" if holder else ""
    return "".join(lines) + f"{len(index.runs)} runs, {left} to do, in {index.root}{there}{now}\n"


def _now() -> str:
    return datetime.datetime.now().astimezone().isoformat(timespec="milliseconds")


def _time(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text)


def _ended_by(code: int) -> str:
    return f"ended by {signal.Signals(-code).name}" if code < 0 else "it said nothing"
