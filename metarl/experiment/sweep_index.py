"""What is known of a sweep's runs: read from its folder and kept there.

A sweep's folder:

sweep.json              the configuration and every run's state; what a resume reads
index.csv               the same as a table, for eyes and other programs
<values>-<hash>/seed_n  one run
logs/                   what each run's process said
"""

import contextlib
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from metarl.experiment.errors import UserError
from metarl.experiment.run_directory import RunDirectory, csv_text
from metarl.experiment.sweeps import (
    FINISHED,
    INTERRUPTED,
    PENDING,
    RUNNING,
    Configuration,
    SweepRun,
    bound_keys,
    configuration,
)

STATE_FILE, INDEX_FILE, LOGS = "sweep.json", "index.csv", "logs"
_FORMAT = 1


class SweepIndex:
    """What is known of a sweep's runs, kept in its folder.

    Args:
        root: of the sweep; need not exist.
        gin_files: of the runs.
        gin_params: of the runs, besides the swept values.
        planned: the runs wanted. Others that the folder knows stay in its index untouched.
        configuration: that the runs have in common.

    Raises:
        UserError: the folder is no sweep's, another sweep's, or has finished runs of more meta-updates.

    Attributes:
        runs: the planned ones, with what the folder knows of them.
        suspicious: whether the folder's runs may have another configuration; their own folders tell.
    """

    def __init__(
        self,
        root: Path,
        gin_files: Sequence[str],
        gin_params: Sequence[str],
        planned: Sequence[SweepRun],
        configuration: Configuration,
    ):
        self.directory = RunDirectory(root)
        self.root = root
        self.suspicious = False
        self._configuration = configuration
        self._base: dict[str, Any] = {"gin_files": list(gin_files), "gin_params": list(gin_params)}
        self._planned = list(planned)
        self.runs: list[SweepRun] = []
        self.load()

    def load(self) -> None:
        """Reads the folder; a run that a killed sweep left running is an interrupted one. Writes nothing."""
        stored = self._read()
        self._running = {run.folder for run in stored if run.state == RUNNING}
        for run in stored:
            gone = run.state == FINISHED and not self._begun(run)
            if gone or run.state == RUNNING:
                run.state = INTERRUPTED if run.state == RUNNING else PENDING
        known = {run.folder: run for run in stored}
        self.runs = [known.get(run.folder, run) for run in self._planned]
        wanted = {run.folder for run in self._planned}
        self._others = [run for run in stored if run.folder not in wanted]
        for run in self.runs:
            self.run_path(run)  # raises if a symbolic link leads out of the sweep

    def _read(self) -> list[SweepRun]:
        path = self.root / STATE_FILE
        try:
            if not self.root.is_dir():
                if self.root.exists():
                    raise UserError(f"cannot use --logdir {self.root}: it is not a folder")
                return []
            names = {entry.name for entry in self.root.iterdir()} - {"lock"}
            if not names:
                return []
            if STATE_FILE not in names:
                what = ", ".join(sorted(names)[:3])
                raise UserError(f"{self.root} is not empty and not a sweep (it holds {what}); choose another --logdir")
            stored = json.loads(path.read_text(encoding="utf-8"))
            runs = [
                SweepRun(**{**run, "folder": str(run["folder"]), "values": dict(run["values"])})
                for run in stored["runs"]
            ]
            base = {name: [str(text) for text in stored[name]] for name in self._base}
            base |= {name: stored.get(name) for name in ("configuration", "iterations")}
            if not isinstance(base["iterations"], int | None):
                raise TypeError
        except OSError as error:
            raise UserError(f"cannot use --logdir {self.root}: {error.strerror}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} cannot be read; bring it back or choose another --logdir") from error
        self._check_same(base, runs)
        return runs

    def _check_same(self, stored: dict[str, Any], runs: list[SweepRun]) -> None:
        there, here = stored["gin_files"], self._base["gin_files"]
        if there != here:
            raise UserError(
                f"{self.root} holds a sweep with --gin_file {', '.join(there)}, not {', '.join(here)}; "
                "choose another --logdir"
            )
        digest, length = stored["configuration"], stored["iterations"]
        wanted = self._configuration.iterations
        if digest is None:  # written before sweeps kept one
            self.suspicious = True
            length = configuration(bound_keys(there, stored["gin_params"])).iterations
        else:
            self.suspicious = digest != self._configuration.digest
        finished = [run for run in runs if run.state == FINISHED and self._begun(run)]
        if length == wanted or not finished:
            return
        if length is not None and wanted is not None and wanted < length:
            raise UserError(
                f"{self.root} holds finished runs of {length} meta-updates, more than the {wanted} wanted; "
                "raise ITERATIONS or choose another --logdir"
            )
        for run in finished:  # every run looks for itself whether it is complete
            run.state = PENDING

    def samples(self) -> list[tuple[SweepRun, Path]]:
        """Returns a run of every combination of values that has begun, with its folder: what it was built with."""
        begun = [run for run in (*self._others, *self.runs) if self._begun(run)]
        by_values = {tuple(sorted(run.values.items())): run for run in begun}
        return [(run, self.run_path(run)) for run in by_values.values()]

    def _begun(self, run: SweepRun) -> bool:
        return (self.run_path(run) / "operative_config.gin").is_file()

    def is_running(self, run: SweepRun) -> bool:
        """Tells whether somebody trains a run at the moment: a living sweep said so, or its folder is locked."""
        said = run.folder in self._running and self.directory.holder() is not None
        return said or RunDirectory(self.run_path(run)).holder() is not None

    def run_path(self, run: SweepRun) -> Path:
        """Returns a run's folder; raises UserError if it would lie outside the sweep's."""
        return self.directory.path(*run.folder.split("/"))

    def log_path(self, run: SweepRun) -> Path:
        """Returns where what a run's process says is kept; raises UserError if that lay outside the sweep's folder."""
        return self.directory.path(LOGS, run.folder.replace("/", "_") + ".log")

    def write(self) -> None:
        """Writes both files; each is replaced as a whole."""
        everything = [*self.runs, *self._others]
        told = {"configuration": self._configuration.digest, "iterations": self._configuration.iterations}
        content = {"format": _FORMAT, **self._base, **told, "runs": [dataclasses.asdict(run) for run in everything]}
        self.directory.write_text(STATE_FILE, json.dumps(content, indent=1) + "\n")
        rows = []
        for run in everything:
            row = dataclasses.asdict(run)
            rows.append({"run": row.pop("folder"), **row.pop("values"), **row})
        self.directory.write_text(INDEX_FILE, csv_text(rows))


def last_line(path: Path) -> str:
    """Returns the last line of a log that says something."""
    with contextlib.suppress(OSError):
        lines = path.read_bytes()[-8192:].decode("utf-8", "replace").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "")
    return ""
