"""One run, one folder: what lies where, who may write there, and whether a folder fits the experiment.

progress.csv            one row per meta-update
tensorboard/            the same as curves, and figures
checkpoints/            the newest states, see `checkpoints.py`
operative_config.gin    every value the experiment was built with
flags.txt               the command line, which `--flagfile` reads; earlier ones follow as comments
versions.json           what its sessions ran on, the first one first
final.csv               the table at the end
crash/                  the evidence if a number was not finite
lock                    held by the process that trains here
"""

import contextlib
import csv
import fcntl
import importlib.metadata
import io
import json
import os
import platform
import re
import socket
import subprocess
import tokenize
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from absl import logging

from metarl.experiment import gin_bindings
from metarl.experiment.checkpoints import list_checkpoints, replacing
from metarl.experiment.errors import UserError
from metarl.experiment.gin_bindings import Key

VERSIONS = "versions.json"
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_WRITTEN_BEFORE_THE_FIRST_CHECKPOINT = {"operative_config.gin", "flags.txt", VERSIONS, "lock", "checkpoints"}
_WRITTEN_LATER = {"progress.csv", "tensorboard", "final.csv", "crash"}
_PACKAGES = ("metarl-tf", "tensorflow", "keras", "tensorflow-probability", "mujoco", "gymnasium", "numpy", "gin-config")
_MAY_CHANGE_NUMBERS = ("python", *_PACKAGES, "git_commit", "git_modified")


def safe_name(name: str, what: str, otherwise: str = "") -> str:
    """Returns `name` if it may become the name of a file or folder.

    Args:
        name: as the user or a file gives it.
        what: names it in the message.
        otherwise: ends the message with what the user can do.

    Raises:
        UserError: it has other characters than letters, digits, '.', '_' and '-', or is '.' or '..'.
    """
    if not _NAME.fullmatch(name) or name in (".", ".."):
        raise UserError(
            f"{what} {name!r} cannot name a folder or file: only letters, digits, '.', '_' and '-'{otherwise}"
        )
    return name


def default_path(gin_files: Iterable[str], seed: Any) -> Path:
    """Returns `runs/<config>/seed_<n>` under the working directory; the names of several files are joined by '-'.

    Raises:
        UserError: a file's name cannot name a folder.
    """
    what, otherwise = "the gin file name", "; give a --logdir"
    stems = "-".join(safe_name(Path(name).name.removesuffix(".gin"), what, otherwise) for name in gin_files)
    folder = Path("runs") / safe_name(stems, what, otherwise)
    return folder if seed is None else folder / safe_name(f"seed_{seed}", "the seed", otherwise)


class RunDirectory:
    """The folder of one run.

    Args:
        path: need not exist; nothing is created before `acquire`.
    """

    def __init__(self, path: str | os.PathLike):
        self.root = Path(path).expanduser()
        self._lock: int | None = None

    def path(self, *names: str) -> Path:
        """Returns a path inside the folder.

        Raises:
            UserError: a name has odd characters, or a symbolic link leads out of the folder.
        """
        path = self.root.joinpath(*(safe_name(name, "the file name") for name in names))
        if not path.resolve().is_relative_to(self.root.resolve()):
            raise UserError(f"{path} leads out of the run's folder")
        return path

    def check(
        self, operative_config: str, bound: Iterable[Key], ignored: Callable[[Key], bool], iterations: int
    ) -> None:
        """Checks that the experiment may start or go on here; only reads.

        Args:
            operative_config: the gin text of the experiment as built.
            bound: the keys that the user bound.
            ignored: tells which keys may differ from the stored run's.
            iterations: meta-updates wanted in all.

        Raises:
            UserError: the folder is not a run, belongs to another configuration, has lost its checkpoints, has done
                more meta-updates already, or cannot be written to.
        """
        try:
            self._check_writable()
            if not self.root.is_dir():
                return
            names = {path.name for path in self.root.iterdir()}
            for name in names & (_WRITTEN_BEFORE_THE_FIRST_CHECKPOINT | _WRITTEN_LATER):
                self.path(name)
            self._check_same(names, operative_config, bound, ignored)
        except OSError as error:
            raise UserError(f"cannot use --logdir {self.root}: {error.strerror}") from error
        done = max(list_checkpoints(self.root), default=None)
        if done is not None and done > iterations:
            raise UserError(
                f"{self.root} has done {done} meta-updates already, more than the {iterations} wanted; raise ITERATIONS"
            )
        lost = sorted(names - _WRITTEN_BEFORE_THE_FIRST_CHECKPOINT - {path for path in names if path.startswith(".")})
        if done is None and lost:
            raise UserError(
                f"{self.root} holds {', '.join(lost)} but no checkpoint: refusing to start again from 0; "
                "bring checkpoints/ back or choose another --logdir"
            )

    def _check_same(
        self, names: set[str], operative_config: str, bound: Iterable[Key], ignored: Callable[[Key], bool]
    ) -> None:
        if "operative_config.gin" not in names:
            known = _WRITTEN_BEFORE_THE_FIRST_CHECKPOINT
            foreign = sorted(name for name in names if name not in known and not _is_temporary(name))
            if foreign or list_checkpoints(self.root):
                what = ", ".join((foreign or ["checkpoints"])[:3])
                raise UserError(f"{self.root} is not empty and not a run (it holds {what}); choose another --logdir")
            return
        self.require_same(operative_config, bound, ignored)

    def require_same(self, operative_config: str, bound: Iterable[Key], ignored: Callable[[Key], bool]) -> None:
        """Checks that the run that is here was built with the same values; only reads. Arguments as of `check`.

        Raises:
            UserError: it was not, or its operative configuration cannot be read.
        """
        try:
            stored = gin_bindings.read(self.path("operative_config.gin").read_text(encoding="utf-8"))
        except (SyntaxError, ValueError, tokenize.TokenError) as error:
            raise UserError(f"{self.root}/operative_config.gin cannot be read; choose another --logdir") from error
        found = gin_bindings.differences(stored, gin_bindings.read(operative_config), bound, ignored)
        if found:
            more = f", and {len(found) - 3} more" if len(found) > 3 else ""
            raise UserError(
                f"{self.root} holds a run of another configuration: {'; '.join(found[:3])}{more}; "
                "choose another --logdir"
            )

    def _check_writable(self) -> None:
        existing = next(path for path in (self.root, *self.root.absolute().parents) if path.exists())
        if not existing.is_dir():
            raise UserError(f"cannot use --logdir {self.root}: {existing} is not a folder")
        if not os.access(existing, os.W_OK | os.X_OK):
            raise UserError(f"cannot use --logdir {self.root}: no permission to write in {existing}")

    def acquire(self) -> None:
        """Creates the folder and locks it for this process; the lock goes when the process does, however it ends.

        Raises:
            UserError: another process trains here, or the folder cannot be made.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.path("lock"), os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise UserError(f"cannot use --logdir {self.root}: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(lock, 1000).decode(errors="replace").strip() or "another process"
            os.close(lock)
            raise UserError(
                f"{self.root} is being trained by {holder}; wait for it or choose another --logdir"
            ) from error
        except OSError as error:
            os.close(lock)
            raise UserError(f"cannot lock {self.root}: {error.strerror}") from error
        with contextlib.suppress(OSError):  # on a full disk the folder is locked all the same
            os.ftruncate(lock, 0)
            os.write(lock, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        self._lock = lock

    def holder(self) -> str | None:
        """Returns who trains here at the moment, or None; changes nothing."""
        try:
            lock = os.open(self.path("lock"), os.O_RDONLY)
        except OSError:
            return None
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return os.read(lock, 1000).decode(errors="replace").strip() or "another process"
        except OSError:  # a file system without locks
            return None
        finally:
            os.close(lock)
        return None

    def release(self) -> None:
        """Gives the lock up; the lock file stays, because deleting it would let two processes in."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def describe(self, operative_config: str, flags: Iterable[str], iteration: int = 0) -> None:
        """Writes what is run, by which command and on what; keeps what earlier sessions wrote.

        Args:
            operative_config: the gin text of the experiment as built.
            flags: the command line.
            iteration: the meta-updates done before this session.
        """
        self._note_flags("".join(f"{flag}\n" for flag in flags))
        self._note_versions(iteration)
        self.write_text("operative_config.gin", operative_config)

    def _note_flags(self, command: str) -> None:
        try:
            lines = self.path("flags.txt").read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        except FileNotFoundError:
            self.write_text("flags.txt", command)
            return
        earlier = [line for line in lines if line.startswith("#")]
        replaced = [line for line in lines if not line.startswith("#")]
        if "".join(replaced) != command:
            number = 1 + sum(line.startswith("# command ") for line in earlier)
            earlier += [f"# command {number}, replaced since:\n", *(f"#   {line}" for line in replaced)]
            self.write_text("flags.txt", command + "".join(earlier))

    def _note_versions(self, iteration: int) -> None:
        """Adds a session to `versions.json` unless it is like the last; warns of what may change the numbers."""
        sessions, now = read_sessions(self.root), versions()
        last = sessions[-1] if sessions else None
        if last is not None:
            changed = [name for name in now if last.get(name) != now[name]]
            if not changed:
                return
            told = [f"{name} {last.get(name)} -> {now[name]}" for name in changed if name in _MAY_CHANGE_NUMBERS]
            if told:
                logging.warning("changed since the last session of %s: %s", self.root, ", ".join(told))
        sessions.append({"after_meta_update": iteration, **now})
        self.write_text(VERSIONS, json.dumps({"sessions": sessions}, indent=2) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """Replaces a text file as a whole: a reader or a crash sees the old one or the new one."""
        write_atomically(self.path(name), text)

    def write_table(self, name: str, rows: list[dict[str, Any]]) -> None:
        """Replaces a CSV file as a whole; floats keep every bit."""
        self.write_text(name, csv_text(rows))


def csv_text(rows: list[dict[str, Any]]) -> str:
    """Returns the CSV text of rows with their keys as header; floats keep every bit, None is an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write_atomically(path: Path, text: str) -> None:
    """Writes a text file beside its place, then renames it there, durably."""
    temporary = path.with_name(f".{path.name}.tmp")
    with replacing(path, temporary) as file:
        file.write(text.encode())


def _is_temporary(name: str) -> bool:
    """Whether a file is one that a killed `write_atomically` left."""
    return name.startswith(".") and name.endswith(".tmp")


def read_sessions(root: Path) -> list[dict[str, Any]]:
    """Returns what `versions.json` of a run says of each session, as `versions` does; [] if it cannot be read.

    A session like the one before it is not listed again; 'after_meta_update' tells where a listed one began.
    """
    try:
        content = json.loads((root / VERSIONS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    sessions = content.get("sessions", [content]) if isinstance(content, dict) else None  # once there was only one
    return sessions if isinstance(sessions, list) and all(isinstance(item, dict) for item in sessions) else []


def versions() -> dict[str, Any]:
    """Returns the versions of Python, the packages and the machine, and the git commit when run from a checkout."""
    packages: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            packages[name] = None
    return {
        "python": platform.python_version(),
        **packages,
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "git_commit": _git("rev-parse", "HEAD"),
        "git_modified": None if (status := _git("status", "--porcelain")) is None else bool(status),
    }


def _git(*arguments: str) -> str | None:
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(["git", "-C", root, *arguments], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
