"""Drawing in a process of its own: MuJoCo, a renderer and an encoder, without TensorFlow.

python -m metarl.rendering.film FOLDER draws what `shoot` has put there. The processes exchange plain arrays, text and
MuJoCo's own model file.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import mujoco
import numpy as np

from metarl.experiment.errors import UserError
from metarl.rendering import backend
from metarl.rendering.rounds import Recording
from metarl.simulation.task_family import Scene

_MODEL, _STATES, _TEXT, _FRAMES = "model.mjb", "states.npz", "film.json", "frames.json"
_ARRAYS = ("states", "rewards", "path")


class Film(NamedTuple):
    """What is to be drawn.

    Attributes:
        model: of MuJoCo; None: points in the plane.
        recordings: one panel each.
        scene: goal and caption.
        period: seconds per step.
    """

    model: mujoco.MjModel | None
    recordings: list[Recording]
    scene: Scene
    period: float


def shoot(film: Film, path: Path, renderer: str) -> tuple[int, float]:
    """Draws a film into an mp4 file, in a process of its own.

    Args:
        film: what to draw.
        path: the file, replaced if it is there.
        renderer: the child's MUJOCO_GL.

    Returns:
        The number of frames and the seconds that they last.

    Raises:
        UserError: the process failed; one line says how.
    """
    with tempfile.TemporaryDirectory(prefix="film-") as name:
        folder = Path(name)
        _store(folder, film, path)
        done = subprocess.run(
            [sys.executable, "-m", "metarl.rendering.film", name],
            env=dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path), **{backend.VARIABLE: renderer}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=False,
        )
        if done.returncode < 0:
            how = signal.Signals(-done.returncode).name
            raise UserError(
                f"the renderer {backend.VARIABLE}={renderer} ended by {how}; another may work, or its update"
            )
        if done.returncode:
            lines = done.stderr.decode(errors="replace").strip().splitlines()
            raise UserError(f"the video could not be drawn: {lines[-1] if lines else 'no reason was given'}")
        count, seconds = json.loads((folder / _FRAMES).read_text())
        return count, seconds


def _store(folder: Path, film: Film, path: Path) -> None:
    if film.model is not None:
        mujoco.mj_saveModel(film.model, str(folder / _MODEL))
    arrays: dict[str, np.ndarray] = {}
    for number, recording in enumerate(film.recordings):
        arrays |= {
            f"{name}_{number}": getattr(recording, name) for name in _ARRAYS if getattr(recording, name) is not None
        }
    np.savez(folder / _STATES, **arrays)  # type: ignore[arg-type]
    text = {
        "path": str(path.resolve()),
        "goal": None if film.scene.goal is None else [float(number) for number in film.scene.goal],
        "caption": film.scene.caption,
        "period": film.period,
        "panels": [
            {name: value for name, value in recording._asdict().items() if name not in _ARRAYS}
            for recording in film.recordings
        ],
    }
    (folder / _TEXT).write_text(json.dumps(text))


def _stored(folder: Path) -> tuple[Film, Path]:
    text = json.loads((folder / _TEXT).read_text())
    with np.load(folder / _STATES, allow_pickle=False) as arrays:
        recordings = [
            Recording(**{name: arrays.get(f"{name}_{number}") for name in _ARRAYS}, **panel)
            for number, panel in enumerate(text["panels"])
        ]
    model = mujoco.MjModel.from_binary_path(str(folder / _MODEL)) if (folder / _MODEL).exists() else None
    goal = None if text["goal"] is None else np.array(text["goal"])
    return Film(model, recordings, Scene(goal, text["caption"]), text["period"]), Path(text["path"])


def main(folder: str) -> None:
    """Draws what `shoot` has stored in `folder`."""
    from metarl.rendering import painters, video

    film, path = _stored(Path(folder))
    painter = painters.make_painter(film.model, film.recordings, film.scene, video.PANEL)
    try:
        pictures, rate = video.frames(painter, film.recordings, film.scene.caption, film.period)
        count = video.encode(path, pictures, rate)
    finally:
        painter.close()
    (Path(folder) / _FRAMES).write_text(json.dumps([count, count / rate]))


if __name__ == "__main__":
    main(sys.argv[1])
