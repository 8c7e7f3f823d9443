"""Checkpoints: one file each, complete or absent, without executable content, checked by a hash when read.

A checkpoint is a zip archive of plain `.npy` arrays (`numpy.load` opens it) and a `manifest.json` with the format's
version, the iteration, each array's name, shape and dtype, and a SHA-256 over all of it. It is written beside its
final place, flushed to the disk and renamed, so that a stop at any moment leaves either all of it or none.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from absl import logging

from metarl.experiment.errors import UserError

FORMAT_VERSION = 1
FOLDER = "checkpoints"
_FILE = re.compile(r"checkpoint_(\d{8,})\.npz")
_TEMPORARY = re.compile(r"\.checkpoint_\d+\.npz\.tmp-\d+")
_PLAIN_KINDS = "biufcSU"  # booleans, numbers and text: whatever needs no pickle
_EPOCH = (1980, 1, 1, 0, 0, 0)  # equal states give equal files


class DamagedCheckpointError(Exception):
    """A checkpoint file cannot be trusted; the message says why."""


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """What one file holds.

    Attributes:
        iteration: completed meta-updates.
        arrays: by flat name.
        path: where it was read from.
    """

    iteration: int
    arrays: dict[str, np.ndarray]
    path: Path


def list_checkpoints(run_directory: str | os.PathLike) -> dict[int, Path]:
    """Returns the checkpoint files of a run by iteration, oldest first; safe while the run is going on."""
    return _list(Path(run_directory) / FOLDER)


def load_checkpoint(path: str | os.PathLike) -> Checkpoint:
    """Reads and verifies one checkpoint file.

    Raises:
        DamagedCheckpointError: the file is cut short, altered, of another kind or holds pickles.
        UserError: the file may not be read, or was written by a newer version of this package.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            manifest = json.loads(archive.read("manifest.json"))
            version, iteration = manifest["format_version"], manifest["iteration"]
            if not (_is_count(version) and version and _is_count(iteration)):
                raise DamagedCheckpointError("its format version or iteration is no number that this package writes")
            if version > FORMAT_VERSION:
                raise UserError(
                    f"{path} has checkpoint format {version}, this version reads up to {FORMAT_VERSION}: "
                    "use the newer version that wrote it"
                )
            arrays = {entry["name"]: _read_array(archive, entry) for entry in manifest["arrays"]}
    except PermissionError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        raise DamagedCheckpointError(_reason(error)) from error
    except (ValueError, KeyError, TypeError, AttributeError, MemoryError, OverflowError, SyntaxError) as error:
        raise DamagedCheckpointError(_reason(error)) from error
    if manifest.get("sha256") != _digest(manifest, arrays):
        raise DamagedCheckpointError("its contents do not have the hash that was stored with them")
    named = _FILE.fullmatch(path.name)
    if named and int(named[1]) != iteration:
        raise DamagedCheckpointError(f"it holds iteration {iteration}, not the one it is named after")
    return Checkpoint(iteration, arrays, path)


class CheckpointStore:
    """The checkpoints of one run, for the one process that trains it.

    Args:
        folder: the run's `checkpoints/`; need not exist yet.
        keep: how many of the newest to keep; 0 keeps all.
    """

    def __init__(self, folder: Path, keep: int = 0):
        self._folder = folder
        self._keep = keep

    def iterations(self) -> list[int]:
        """Returns the iterations that have a file, oldest first."""
        return list(_list(self._folder))

    def clean(self) -> None:
        """Deletes unfinished files that a killed process left; the caller must hold the run's lock."""
        if self._folder.is_dir():
            for path in self._folder.iterdir():
                if _TEMPORARY.fullmatch(path.name):
                    path.unlink()

    def restore(self) -> Checkpoint | None:
        """Returns the newest readable checkpoint, or None if the folder holds none at all.

        Damaged ones are reported and set aside under the name '<name>.damaged'; they are never deleted.

        Raises:
            UserError: there are checkpoints and none is readable (nothing was set aside), or one is of a newer format.
        """
        damaged: list[Path] = []
        for path in reversed(_list(self._folder).values()):
            try:
                checkpoint = load_checkpoint(path)
            except DamagedCheckpointError as error:
                logging.warning("checkpoint %s is damaged (%s); trying the one before", path, error)
                damaged.append(path)
                continue
            for bad in damaged:
                logging.warning("the damaged checkpoint is kept as %s", _set_aside(bad))
            return checkpoint
        if damaged:
            raise UserError(
                f"none of the {len(damaged)} checkpoints in {self._folder} is readable: refusing to start again "
                "from 0; restore one of them or choose another --logdir"
            )
        return None

    def save(self, iteration: int, arrays: Mapping[str, np.ndarray]) -> Path:
        """Writes a checkpoint durably and deletes those beyond the newest `keep`.

        Args:
            iteration: completed meta-updates, which names the file.
            arrays: booleans, numbers or text under flat names, any shape.

        Raises:
            TypeError: an array holds Python objects.
            OSError: the disk refuses; the earlier checkpoints are untouched.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"checkpoint_{iteration:08d}.npz"
        temporary = self._folder / f".{path.name}.tmp-{os.getpid()}"
        with replacing(path, temporary) as file:
            _write(file, iteration, {name: np.asarray(array, order="C") for name, array in arrays.items()})
        if self._keep:
            older = [known for known in self.iterations() if known <= iteration]
            for known in older[: -self._keep]:
                _list(self._folder)[known].unlink()
        return path


@contextlib.contextmanager
def replacing(path: Path, temporary: Path) -> Iterator[IO[bytes]]:
    """A file to write, which then takes the place of `path`, durably; nothing of it is left if writing fails.

    Args:
        path: what a reader or a crash sees as it was or as it will be.
        temporary: in the same folder.
    """
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes a rename or a new file in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _list(folder: Path) -> dict[int, Path]:
    if not folder.is_dir():
        return {}
    found = {int(match[1]): path for path in folder.iterdir() if (match := _FILE.fullmatch(path.name))}
    return dict(sorted(found.items()))


def _write(file: Any, iteration: int, arrays: dict[str, np.ndarray]) -> None:
    manifest: dict[str, Any] = {"format_version": FORMAT_VERSION, "iteration": int(iteration), "arrays": []}
    for name, array in arrays.items():
        if array.dtype.kind not in _PLAIN_KINDS:
            raise TypeError(f"a checkpoint cannot hold {name!r} of dtype {array.dtype}")
        manifest["arrays"].append({"name": name, "shape": list(array.shape), "dtype": array.dtype.str})
    manifest["sha256"] = _digest(manifest, arrays)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo("manifest.json", _EPOCH), json.dumps(manifest, indent=1))
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy", _EPOCH), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _read_array(archive: zipfile.ZipFile, entry: Mapping[str, Any]) -> np.ndarray:
    with archive.open(f"{entry['name']}.npy") as member:
        array = np.lib.format.read_array(member, allow_pickle=False)
        member.read()  # up to the end, where zipfile compares its checksum
    if list(array.shape) != entry["shape"] or array.dtype.str != entry["dtype"]:
        raise ValueError(f"the array {entry['name']!r} is not what the manifest says")
    return array


def _digest(manifest: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    described = {key: value for key, value in manifest.items() if key != "sha256"}
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    for entry in manifest["arrays"]:
        digest.update(np.ascontiguousarray(arrays[entry["name"]]).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _set_aside(path: Path) -> Path:
    for number in range(1, 1000):
        target = path.with_name(f"{path.name}.damaged" + (f"-{number}" if number > 1 else ""))
        if not target.exists():
            return path.rename(target)
    raise UserError(f"too many damaged copies of {path}; move them away")


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
