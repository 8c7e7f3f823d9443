"""A video of a saved run: one rollout before and after each fast-update, side by side.

A look writes one mp4 file into the run's `videos/` (or to `--output`) and changes nothing else.
"""

import itertools
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from absl import logging

from metarl.experiment import saved_run
from metarl.experiment.errors import UserError
from metarl.experiment.learner import EvaluationRequest
from metarl.experiment.result_folder import require_writable, result_folder
from metarl.experiment.run_directory import RunDirectory
from metarl.experiment.saved_run import SavedRun
from metarl.rendering import backend, film, rounds
from metarl.rendering.film import Film
from metarl.simulation.mujoco_simulation import MujocoSimulation

FOLDER = "videos"
_SUFFIX = ".mp4"
_POINT_PERIOD = 0.05  # seconds that a step of a system without physics is shown for


def run(saved: SavedRun, request: EvaluationRequest, output: str | None = None, renderer: str | None = None) -> int:
    """Renders the learner of a run as a checkpoint holds it.

    Args:
        saved: the run, which may be in training.
        request: at most one task, the number of fast-updates and the seed; None: the run's own.
        output: the mp4 file to write; default: a new one in the run's `videos/`.
        renderer: the MUJOCO_GL that the user asks for; default: one that works.

    Returns:
        The exit code, 0.

    Raises:
        UserError: a mistake in the request, no renderer, or nothing to draw; nothing was written.
    """
    check_output(saved, output)
    learner = saved_run.build_learner(saved)
    family = getattr(learner, "family", None)
    if family is None:
        raise UserError(f"{type(learner).__name__} has no rollouts to render")
    drawn = rounds.drawable_simulation(family, 1).drawn
    model, period = None, _POINT_PERIOD
    if isinstance(drawn, MujocoSimulation):
        model, period = drawn.model, drawn.control_period
        renderer = backend.choose(renderer)

    sampled = learner.sample_rounds(request, _show_phase)
    recordings = [rounds.record(family, sampled.task, one) for one in sampled.rounds]
    for recording in recordings:
        logging.info(
            "%s: return %.4g, the median of %d episodes with mean %.4g",
            recording.label,
            recording.episode_return,
            recording.num_episodes,
            recording.mean_return,
        )
    _show_phase("drawing")
    path, seconds = _write(saved, output, Film(model, recordings, family.scene(sampled.task), period), renderer or "")
    logging.info("%.1f s, written to %s", seconds, path)
    return 0


def check_output(saved: SavedRun, output: str | None) -> None:
    """Raises UserError if the video could not be written, or would go where it does not belong; makes nothing."""
    videos = RunDirectory(saved.root).path(FOLDER)
    if output is None:
        require_writable(videos)
        return
    path = Path(output)
    if path.suffix != _SUFFIX:
        raise UserError(f"--output={output} must be an mp4 file, such as {path.stem or 'rollout'}{_SUFFIX}")
    if os.path.lexists(path):
        raise UserError(f"--output={output} exists already; choose another name")
    target, home = path.resolve(), saved.root.resolve()
    if target.is_relative_to(home) and target.parent != home / FOLDER:
        raise UserError(f"--output={output} is inside the run; choose a name in {videos}/ or outside")
    require_writable(path.parent)


def _write(saved: SavedRun, output: str | None, pictures: Film, renderer: str) -> tuple[Path, float]:
    """Draws beside the final place and takes a free name; returns the file and its seconds."""
    folder = RunDirectory(saved.root).path(FOLDER) if output is None else Path(output).parent
    with result_folder(saved, FOLDER, str(folder)):
        try:
            handle, name = tempfile.mkstemp(prefix=".video-", suffix=_SUFFIX, dir=folder)
            os.close(handle)
            temporary = Path(name)
            try:
                _, seconds = film.shoot(pictures, temporary, renderer)
                path = _claimed(_new_names(saved) if output is None else [Path(output)])
                temporary.chmod(path.stat().st_mode & 0o777)
                os.replace(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"cannot write the video to {folder}: {error.strerror}; choose another --output") from error
    return path, seconds


def _claimed(names: Iterable[Path]) -> Path:
    """Makes an empty file of the first name that is free: from here on it is ours."""
    taken = None
    for path in names:
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        except FileExistsError:
            taken = path
            continue
        return path
    raise UserError(f"--output={taken} exists by now; choose another name")


def _new_names(saved: SavedRun) -> Iterator[Path]:
    """Names for a video, after the checkpoint and a counter."""
    for counter in itertools.count(1):
        yield RunDirectory(saved.root).path(
            FOLDER, f"iteration_{saved.checkpoint.iteration:08d}_{counter:03d}{_SUFFIX}"
        )


def _show_phase(phase: str) -> None:
    logging.info("%s", phase)
