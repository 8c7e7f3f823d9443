"""One picture of one state: of a MuJoCo model with its goal, or of a point in the plane.

Shapes: `T` steps, `nq` positions of a model, `P` points; a picture is [size, size, 3] uint8.
"""

import abc
import itertools
from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from metarl.rendering import camera as cameras
from metarl.rendering.rounds import Recording
from metarl.simulation.task_family import Scene

_GOAL_COLOUR = (0.9, 0.1, 0.1, 1.0)
_PATH_COLOUR = (0.1, 0.3, 0.7, 0.6)
# Shares of the camera's distance: the goal's disc, its pole, which shows above a robot that stands on it, and the path.
_DISC_RADIUS, _POLE_RADIUS, _POLE_HEIGHT, _PATH_RADIUS = 0.02, 0.003, 0.12, 0.003
_DISTANCE_OF_WIDTH = 1.4  # roughly, how far off a camera is that sees something of width 1
_PATH_PIECES = 100
# A quarter of the default side, and half the samples of an edge: they take most of a software renderer's time.
_SHADOW_PIXELS, _EDGE_SAMPLES = 1024, 2
_FIT_STATES = 40  # of each recording, for the camera
_FOLLOWING = "track"  # the name of the camera that the usual benchmark models follow the robot with
_POINTS_PER_INCH = 72


class Painter(abc.ABC):
    """Draws states; the view is the same for all of them."""

    @abc.abstractmethod
    def paint(self, recording: Recording, step: int) -> np.ndarray:
        """Returns the picture after `step` steps of a recording, with the path up to there if it has one."""

    def close(self) -> None:  # noqa: B027  (optional by intention)
        """Gives back what the renderer holds."""


def make_painter(model: mujoco.MjModel | None, recordings: Sequence[Recording], scene: Scene, size: int) -> Painter:
    """Returns the painter of a MuJoCo model, or of points where there is none."""
    if model is None:
        return PointPainter(recordings, scene, size)
    return MujocoPainter(model, recordings, scene, size)


class MujocoPainter(Painter):
    """A MuJoCo model, off-screen, with the goal as a red disc and pole and the path of what should reach it.

    A camera that the model has for following it is used where no place is to be marked; else the camera stands still.

    Args:
        model: what to draw; its shadows and edges are made coarser.
        recordings: everything that will be drawn, which the view depends on.
        scene: the goal.
        size: pixels of a side, at most the model's off-screen buffer (480 by MuJoCo's default).
    """

    def __init__(self, model: mujoco.MjModel, recordings: Sequence[Recording], scene: Scene, size: int):
        self._model, self._data = model, mujoco.MjData(model)
        model.vis.quality.shadowsize, model.vis.quality.offsamples = _SHADOW_PIXELS, _EDGE_SAMPLES
        planes = np.flatnonzero(model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE)
        self._floor = float(model.geom_pos[planes[0], 2]) if planes.size else 0.0
        self._goal = None if scene.goal is None else np.append(scene.goal, self._floor)[:3].astype(np.float64)
        following = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, _FOLLOWING)
        self._camera: mujoco.MjvCamera | int = following
        self._scale = 1.0
        if self._goal is not None or following < 0:
            in_plane = scene.goal is not None and len(scene.goal) == 2
            view = cameras.fitted(*self._extent(recordings), model.vis.global_.fovy, from_above=in_plane)
            self._scale = view.distance
            self._camera = mujoco.MjvCamera()
            self._camera.lookat[:] = view.lookat
            self._camera.distance, self._camera.azimuth, self._camera.elevation = view[1:]
        self._renderer = mujoco.Renderer(model, size, size)

    def close(self) -> None:
        """Frees the off-screen buffer."""
        self._renderer.close()

    def paint(self, recording: Recording, step: int) -> np.ndarray:
        """Returns the picture after `step` steps of a recording."""
        self._data.qpos[:] = recording.states[step]
        mujoco.mj_forward(self._model, self._data)
        self._renderer.update_scene(self._data, self._camera)
        if self._goal is not None:
            self._mark_goal(self._goal)
            if recording.path is not None:
                self._draw_path(recording.path[:step])
        return self._renderer.render()

    def _extent(self, recordings: Sequence[Recording]) -> tuple[np.ndarray, np.ndarray]:
        """The centres [P, 3] and radii [P] of everything that moves, over all recordings, and of the goal's mark."""
        model, data = self._model, self._data
        solid = np.flatnonzero(model.body_weldid[model.geom_bodyid] != 0)
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
        places = np.concatenate([*points, self._goal[None]])
        width = float(np.max(np.ptp(places, axis=0))) + float(np.max(radii))
        marks = self._goal + np.outer((0.0, _POLE_HEIGHT), (0.0, 0.0, _DISTANCE_OF_WIDTH * width))
        return np.concatenate([*points, marks]), np.append(radii, [_DISC_RADIUS * _DISTANCE_OF_WIDTH * width] * 2)

    def _mark_goal(self, goal: np.ndarray) -> None:
        radius, half_pole = _DISC_RADIUS * self._scale, 0.5 * _POLE_HEIGHT * self._scale
        thin = 0.1 * radius
        cylinder = mujoco.mjtGeom.mjGEOM_CYLINDER
        self._add(cylinder, (radius, thin, 0.0), goal + np.array([0.0, 0.0, thin]), _GOAL_COLOUR)
        pole = _POLE_RADIUS * self._scale
        self._add(cylinder, (pole, half_pole, 0.0), goal + np.array([0.0, 0.0, half_pole]), _GOAL_COLOUR)

    def _draw_path(self, path: np.ndarray) -> None:
        """Draws [T, 2] on the floor."""
        path = path[np.isfinite(path).all(axis=1)]
        if len(path) < 2:
            return
        corners = path[np.unique(np.linspace(0, len(path) - 1, min(len(path), _PATH_PIECES)).astype(int))]
        width = _PATH_RADIUS * self._scale
        places = np.column_stack([corners, np.full(len(corners), self._floor + width)])
        for begin, end in itertools.pairwise(places):
            geom = self._add(mujoco.mjtGeom.mjGEOM_CAPSULE, (width,) * 3, begin, _PATH_COLOUR)
            if geom is not None:
                mujoco.mjv_connector(geom, mujoco.mjtGeom.mjGEOM_CAPSULE, width, begin, end)

    def _add(self, kind: int, size: Sequence[float], place: np.ndarray, colour: Sequence[float]) -> Any:
        """Adds a shape to the picture, if there is room for one more; returns it."""
        scene = self._renderer.scene
        if scene.ngeom >= scene.maxgeom:
            return None
        geom = scene.geoms[scene.ngeom]
        mujoco.mjv_initGeom(geom, kind, np.array(size), place, np.eye(3).ravel(), np.array(colour, np.float32))
        scene.ngeom += 1
        return geom


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

    def paint(self, recording: Recording, step: int) -> np.ndarray:
        """Returns the picture of the path up to `step`, with the point at its end."""
        states = recording.states[: step + 1]
        self._path.set_data(states[:, 0], states[:, 1])
        self._point.set_data(states[-1:, 0], states[-1:, 1])
        self._canvas.draw()
        return np.asarray(self._canvas.buffer_rgba())[..., :3].copy()
