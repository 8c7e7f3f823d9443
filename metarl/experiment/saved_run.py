"""A run as others left it, or are still training it: found, rebuilt and restored without touching its folder."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import logging

from metarl.experiment import runtime
from metarl.experiment.checkpoints import FOLDER, Checkpoint, DamagedCheckpointError, list_checkpoints, load_checkpoint
from metarl.experiment.errors import UserError, did_you_mean
from metarl.experiment.run_directory import read_sessions

if TYPE_CHECKING:
    from metarl.experiment.learner import Learner

_CONFIG = "operative_config.gin"
_LATEST = "latest"


@dataclasses.dataclass(frozen=True)
class SavedRun:
    """A run's folder and one of its checkpoints.

    Attributes:
        root: the folder.
        config: its operative configuration.
        checkpoint: as read.
        trained_with: the versions of the sessions that trained it, as `versions.json` lists them.
    """

    root: Path
    config: Path
    checkpoint: Checkpoint
    trained_with: list[dict[str, Any]]


def find(directory: str | None, which: str = _LATEST, *, allow_untrained: bool = False) -> SavedRun:
    """Reads a run's checkpoint; takes no lock and writes nothing.

    Args:
        directory: the run's folder.
        which: "latest" (the newest that is readable), an iteration, or the path of a checkpoint file.
        allow_untrained: accept the state before the first meta-update.

    Raises:
        UserError: there is no such folder, run or checkpoint, it cannot be read, or it holds no trained weights.
    """
    if not directory:
        raise UserError("which run? Give --run=runs/<config>/seed_<n>")
    root = Path(directory).expanduser()
    if not root.is_dir():
        siblings = [path.name for path in root.parent.iterdir() if path.is_dir()] if root.parent.is_dir() else []
        raise UserError(f"--run={directory}: there is no such folder{did_you_mean(root.name, siblings)}")
    config = root / _CONFIG
    if not config.is_file():
        runs = sorted(path.parent for path in (*root.glob(f"*/{_CONFIG}"), *root.glob(f"*/*/{_CONFIG}")))
        hint = f"; did you mean {str(runs[0])!r}?" if runs else ""
        raise UserError(f"--run={directory} is not a run: it holds no {_CONFIG}{hint}")
    checkpoint = _checkpoint(root, which)
    if checkpoint.iteration == 0 and not allow_untrained:
        raise UserError(
            f"{checkpoint.path} is from before the first meta-update: there are no trained weights "
            "(--allow_untrained evaluates it all the same)"
        )
    return SavedRun(root, config, checkpoint, read_sessions(root))


def build_learner(saved: SavedRun) -> "Learner":
    """Builds the learner of the run's own configuration and restores the checkpoint into it.

    Raises:
        UserError: the configuration does not build with this version of the code, or the checkpoint is not of it.
    """
    runtime.import_tensorflow()
    # What follows imports TensorFlow at some point, which is only silent from here on.
    from metarl.experiment import gin_front_door

    try:
        config = gin_front_door.parse([str(saved.config.resolve())])
    except UserError as error:
        raise UserError(str(error).replace("--gin_file: ", "--run: ", 1)) from error
    learner = gin_front_door.build(config, all_used=False).learner
    try:
        learner.restore(saved.checkpoint.arrays)
    except UserError as error:
        raise UserError(f"{saved.checkpoint.path} does not fit {saved.config}: {error}") from error
    return learner


def _checkpoint(root: Path, which: str) -> Checkpoint:
    if which == _LATEST:
        return _latest(root)
    known = list_checkpoints(root)
    if which.isdecimal():
        iteration = int(which)
        if iteration not in known:
            raise UserError(f"--checkpoint={which}: {_what_there_is(root, known, iteration)}")
        path = known[iteration]
    else:
        path = next((path for path in (Path(which), root / FOLDER / which) if path.is_file()), Path(which))
        if not path.is_file():
            names = [_LATEST, *(path.name for path in known.values())]
            raise UserError(f"--checkpoint={which}: there is no such file{did_you_mean(path.name, names)}")
    try:
        return load_checkpoint(path)
    except DamagedCheckpointError as error:
        raise UserError(f"--checkpoint={which}: {path} is damaged: {error}") from error


def _latest(root: Path) -> Checkpoint:
    """The newest readable checkpoint; the training may delete old ones meanwhile."""
    seen: set[Path] = set()
    while paths := [path for path in reversed(list_checkpoints(root).values()) if path not in seen]:
        path = paths[0]
        seen.add(path)
        try:
            return load_checkpoint(path)
        except DamagedCheckpointError as error:
            if path.exists():
                logging.warning("checkpoint %s is damaged (%s); trying another", path, error)
    if seen:
        raise UserError(f"none of the checkpoints in {root / FOLDER} is readable")
    raise UserError(f"{root} has no checkpoint: there are no trained weights to evaluate")


def _what_there_is(root: Path, known: dict[int, Path], iteration: int) -> str:
    if not known:
        return f"{root} has no checkpoint: there are no trained weights to evaluate"
    nearest = min(known, key=lambda other: abs(other - iteration))
    return f"{root} has no checkpoint of iteration {iteration}; the nearest is {nearest}"
