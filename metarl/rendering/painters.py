"""One picture of one state: of a MuJoCo model with its goal, or of a point in the plane.

Shapes: `T` steps, `nq` positions of a model, `P` points; a picture is [size, size, 3] uint8.
"""

import abc
from collections.abc import Sequence

import mujoco
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from metarl.rendering import camera as cameras
from metarl.rendering.rounds import Recording
from metarl.simulation.task_family import Scene

_GOAL_COLOUR = (0.9, 0.1, 0.1, 0.9)
_HALO_COLOUR = (0.9, 0.1, 0.1, 0.3)
_GOAL_SIZE = 0.012  # radius of the mark, as a share of the camera's distance
_HALO_SIZE = 0.035
_FIT_STATES = 40  # of each recording, for the camera
_FOLLOWING = "track"  # the name of the camera that the usual benchmark models follow the robot with
_POINTS_PER_INCH = 72


class Painter(abc.ABC):
    """Draws states; the view is the same for all of them."""

    @abc.abstractmethod
    def paint(self, states: np.ndarray) -> np.ndarray:
        """Returns the picture of the last of `states` [T, nq or 2]; those before may show as a path."""

    def close(self) -> None:  # noqa: B027  (optional by intention)
        """Gives back what the renderer holds."""


def make_painter(model: mujoco.MjModel | None, recordings: Sequence[Recording], scene: Scene, size: int) -> Painter:
    """Returns the painter of a MuJoCo model, or of points where there is none."""
    if model is None:
        return PointPainter(recordings, scene, size)
    return MujocoPainter(model, recordings, scene, size)


class MujocoPainter(Painter):
    """A MuJoCo model, off-screen, with the goal as a red ball over a disc.

    A camera that the model has for following it is used where no place is to be marked; else the camera stands still.

    Args:
        model: what to draw; not changed.
        recordings: everything that will be drawn, which the view depends on.
        scene: the goal.
        size: pixels of a side, at most the model's off-screen buffer (480 by MuJoCo's default).
    """

    def __init__(self, model: mujoco.MjModel, recordings: Sequence[Recording], scene: Scene, size: int):
        self._model, self._data = model, mujoco.MjData(model)
        self._goal = None if scene.goal is None else np.asarray(scene.goal, np.float64)
        following = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, _FOLLOWING)
        self._camera: mujoco.MjvCamera | int = following
        self._scale = 1.0
        if self._goal is not None or following < 0:
            view = cameras.fitted(*self._extent(recordings), model.vis.global_.fovy)
            self._scale = view.distance
            self._camera = mujoco.MjvCamera()
            self._camera.lookat[:] = view.lookat
            self._camera.distance, self._camera.azimuth, self._camera.elevation = view[1:]
        self._renderer = mujoco.Renderer(model, size, size)

    def close(self) -> None:
        """Frees the off-screen buffer."""
        self._renderer.close()

    def paint(self, states: np.ndarray) -> np.ndarray:
        """Returns the picture of the last of `states` [T, nq]."""
        self._data.qpos[:] = states[-1]
        mujoco.mj_forward(self._model, self._data)
        self._renderer.update_scene(self._data, self._camera)
        if self._goal is not None:
            self._mark_goal()
        return self._renderer.render()

    def _extent(self, recordings: Sequence[Recording]) -> tuple[np.ndarray, np.ndarray]:
        """The centres [P, 3] and radii [P] of everything but planes, over all recordings, and of the goal."""
        model, data = self._model, self._data
        solid = np.flatnonzero(model.geom_type != mujoco.mjtGeom.mjGEOM_PLANE)
        points = []
        for recording in recordings:
            count = len(recording.states)
            for index in np.unique(np.linspace(0, count - 1, min(count, _FIT_STATES)).astype(int)):
                data.qpos[:] = recording.states[index]
                mujoco.mj_kinematics(model, data)
                points.append(data.geom_xpos[solid].copy())
        radii = np.tile(model.geom_rbound[solid], len(points))
        if self._goal is None:
            return np.concatenate(points), radii
        goal = self._goal_position(float(np.max(model.geom_rbound[solid])))
        return np.concatenate([*points, goal[None]]), np.append(radii, 0.1)

    def _goal_position(self, height: float) -> np.ndarray:
        assert self._goal is not None
        return self._goal if len(self._goal) == 3 else np.append(self._goal, height)

    def _mark_goal(self) -> None:
        scene = self._renderer.scene
        radius, halo = _GOAL_SIZE * self._scale, _HALO_SIZE * self._scale
        place = self._goal_position(radius)
        shapes = [
            (mujoco.mjtGeom.mjGEOM_SPHERE, (radius,) * 3, _GOAL_COLOUR),
            (mujoco.mjtGeom.mjGEOM_CYLINDER, (halo, halo, 0.1 * radius), _HALO_COLOUR),
        ]
        for kind, size, colour in shapes:
            if scene.ngeom < scene.maxgeom:
                mujoco.mjv_initGeom(
                    scene.geoms[scene.ngeom],
                    kind,
                    np.array(size),
                    place,
                    np.eye(3).ravel(),
                    np.array(colour, np.float32),
                )
                scene.ngeom += 1


class PointPainter(Painter):
    """A point in the plane with its path and the goal, drawn by Matplotlib; no renderer is needed.

    Args:
        recordings: everything that will be drawn, which the view depends on.
        scene: the goal.
        size: pixels of a side.
    """

    def __init__(self, recordings: Sequence[Recording], scene: Scene, size: int):
        figure = Figure(figsize=(size / _POINTS_PER_INCH, size / _POINTS_PER_INCH), dpi=_POINTS_PER_INCH)
        self._canvas = FigureCanvasAgg(figure)
        axes = figure.add_axes((0.1, 0.07, 0.86, 0.86))
        everything = np.concatenate([recording.states for recording in recordings])
        everything = everything[np.isfinite(everything).all(axis=1)]
        if scene.goal is not None:
            everything = np.concatenate([everything, scene.goal[None, :2]])
            axes.plot(*scene.goal[:2], marker="*", markersize=20, color="tab:red", linestyle="none", zorder=3)
        low, high = everything.min(axis=0), everything.max(axis=0)
        middle, half = 0.5 * (low + high), 0.5 * max(float(np.max(high - low)), 0.1) * 1.12
        axes.set_xlim(middle[0] - half, middle[0] + half)
        axes.set_ylim(middle[1] - half, middle[1] + half)
        axes.set_aspect("equal")
        axes.grid(alpha=0.3)
        (self._path,) = axes.plot([], [], color="tab:blue", linewidth=1.5, alpha=0.6)
        (self._point,) = axes.plot([], [], marker="o", markersize=11, color="tab:blue", linestyle="none", zorder=4)

    def paint(self, states: np.ndarray) -> np.ndarray:
        """Returns the picture of the path `states` [T, 2] with the point at its end."""
        self._path.set_data(states[:, 0], states[:, 1])
        self._point.set_data(states[-1:, 0], states[-1:, 1])
        self._canvas.draw()
        return np.asarray(self._canvas.buffer_rgba())[..., :3].copy()
