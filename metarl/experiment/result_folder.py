"""The folder that a look at a saved run writes its result to: new, and gone again if nothing was written."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from metarl.experiment.errors import UserError
from metarl.experiment.run_directory import RunDirectory
from metarl.experiment.saved_run import SavedRun


@contextlib.contextmanager
def result_folder(saved: SavedRun, kind: str, output: str | None = None) -> Iterator[Path]:
    """Makes the result's folder before the work whose result it is for; if nothing is written there, it goes again.

    Args:
        saved: the run and its checkpoint.
        kind: folder of the run for results of this kind; a new one is made in it, named after the checkpoint.
        output: another folder instead.

    Raises:
        UserError: nothing can be written there; names `--output` if that can choose another place.
    """
    wanted = RunDirectory(saved.root).path(kind) if output is None else Path(output).expanduser()
    made = [path for path in (wanted, *wanted.parents) if not os.path.exists(path)]
    try:
        try:
            if output is None:
                wanted = _new_folder(saved, kind)
                made.insert(0, wanted)
            wanted.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=wanted):
                pass
        except OSError as error:
            raise UserError(f"cannot write to {wanted}: {error.strerror}; choose another --output") from error
        yield wanted
    finally:
        for path in made:
            with contextlib.suppress(OSError):  # it holds the result, or what somebody else put there
                path.rmdir()


def _new_folder(saved: SavedRun, kind: str) -> Path:
    """Makes and returns <kind>/<iteration>_<counter>; two at once get one each."""
    run_directory = RunDirectory(saved.root)
    counter = 0
    while True:
        counter += 1
        folder = run_directory.path(kind, f"iteration_{saved.checkpoint.iteration:08d}_{counter:03d}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder


def require_writable(folder: Path) -> None:
    """Raises UserError if `folder` could not be made or written to; makes nothing."""
    # os.path.exists says False of a name that is too long; making the folder tells of it
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if os.path.exists(path))
    if not existing.is_dir():
        raise UserError(f"cannot write to {folder}: {existing} is not a folder; choose another --output")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(f"cannot write to {folder}: no permission in {existing}; choose another --output")
