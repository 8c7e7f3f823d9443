"""The point mass and two-dimensional navigation (MB-MPO specification, sections 7.2 and 8.1).

Shapes: `n` copies; observation and action have two numbers, O = A = 2.
"""

import abc
import math

import gin
import numpy as np
import tensorflow as tf

from metarl.experiment import checks
from metarl.experiment.errors import UserError
from metarl.simulation.imaginable import ImaginableFamily
from metarl.simulation.task_family import Scene, Simulation, StepOutcome, TaskFamily

STEP_LIMIT = 0.1
"""Largest move per step and axis."""
ARRIVAL_TOLERANCE = 0.01
"""An episode ends when both coordinates are nearer to the goal than this."""


class _PointFamily(TaskFamily):
    """A point that moves by clip(action_scale · a, ±0.1) per step and axis.

    Attributes:
        action_scale: length of the move that an action of 1 asks for.
    """

    observation_dim = 2
    action_dim = 2
    state_dim = 2
    ends_early = True
    info_keys = ()
    action_scale: float

    def make_simulation(self, num_copies: int) -> Simulation:
        """Returns `num_copies` fresh points."""
        return PointSimulation(self, num_copies)

    def moves(self, actions: np.ndarray) -> np.ndarray:
        """Returns clip(action_scale · a, ±0.1), [..., 2] float64."""
        # Two ufuncs take a fifth of the time of `np.clip` on a small block.
        return np.minimum(np.maximum(self.action_scale * actions, -STEP_LIMIT), STEP_LIMIT)

    @abc.abstractmethod
    def starts(self, numbers: np.ndarray | None) -> np.ndarray:
        """Positions after resets with the given numbers ([k, reset_dim], None: no randomness), [k or 1, 2] float64."""

    @abc.abstractmethod
    def goals(self, tasks: np.ndarray) -> np.ndarray:
        """Goals of copies that work on `tasks` [n, G], [n or 1, 2] float64."""

    def scene(self, task: np.ndarray) -> Scene:
        """The goal."""
        goal = self.goals(task[None])[0]
        return Scene(goal, f"goal {goal[0]:.2f}, {goal[1]:.2f}")


@gin.configurable(module="mbmpo")
class Point2D(_PointFamily, ImaginableFamily):
    """A point that has to come near one fixed goal (section 7.2, Point2D).

    Observation: position. Reward -‖o' - goal‖, imagined and real; the episode ends when both coordinates of o' are
    within 0.01 of the goal's. An action of 1 is a step of 0.1. The start is uniform in a box. Nothing limits the plane.

    The plasticity study (section 9.2) uses the defaults with learned models, and start_low=(2, 2), start_high=(6, 6),
    goal=(4, 4) with fake ones.

    Attributes:
        start_low, start_high: [2] float64, corners of the box of starts.
        goal: [2] float64.
    """

    name = "point_2d"
    task_dim = 0
    reset_dim = 2
    can_terminate = True
    action_scale = STEP_LIMIT

    def __init__(
        self,
        *,
        start_low: tuple[float, float] = (-2.0, -2.0),
        start_high: tuple[float, float] = (2.0, 2.0),
        goal: tuple[float, float] = (0.0, 0.0),
    ):
        """Checks and stores the box and the goal.

        Args:
            start_low: lower corner of the box of starts.
            start_high: upper corner, nowhere below the lower one.
            goal: where to go.

        Raises:
            UserError: something that is not two finite numbers, or corners in the wrong order.
        """
        self.start_low = _pair("Point2D.start_low", start_low)
        self.start_high = _pair("Point2D.start_high", start_high)
        self.goal = _pair("Point2D.goal", goal)
        if (self.start_low > self.start_high).any():
            raise UserError(f"Point2D.start_low must not exceed start_high, got {start_low!r} and {start_high!r}")

    def draw_task(self, rng: np.random.Generator | np.random.RandomState) -> np.ndarray:
        """Returns the only task, which has no numbers."""
        return np.zeros(0)

    def draw_reset(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Returns `count` starts, [count, 2]."""
        return rng.uniform(self.start_low, self.start_high, (count, 2))

    def starts(self, numbers: np.ndarray | None) -> np.ndarray:
        """Positions after resets; without randomness the upper corner of the box."""
        return self.start_high[None] if numbers is None else numbers

    def goals(self, tasks: np.ndarray) -> np.ndarray:
        """The goal, [1, 2]."""
        return self.goal[None]

    def initial_observations(self, numbers: np.ndarray) -> np.ndarray:
        """Observations after resets: the numbers themselves, [k, 2] float64."""
        return np.array(numbers, np.float64)

    def reward(self, observation: tf.Tensor, action: tf.Tensor, next_observation: tf.Tensor) -> tf.Tensor:
        """-‖o' - goal‖, [...]."""
        return -tf.norm(next_observation - tf.constant(self.goal, next_observation.dtype), axis=-1)

    def termination(self, next_observation: tf.Tensor) -> tf.Tensor:
        """Whether both coordinates are within 0.01 of the goal's, [...] bool."""
        offset = next_observation - tf.constant(self.goal, next_observation.dtype)
        return tf.reduce_all(tf.abs(offset) < ARRIVAL_TOLERANCE, axis=-1)


@gin.configurable(module="mbmpo")
class PointNavigation(_PointFamily):
    """Two-dimensional navigation, the usual benchmark of MAML on real tasks; a task is a goal (G = 2).

    It is not a task of the specification: it follows the 2-D navigation of the public programs that this project is
    compared with. Goals are uniform in a square around the origin, every episode starts at the origin, the reward is
    minus the distance to the hidden goal after the step, the episode ends when both coordinates are within 0.01 of the
    goal's, and the horizon is 100. There the policy acts in metres: an action is the move itself, clipped to ±0.1.
    """

    name = "point_navigation"
    task_dim = 2
    task_key = "goal"

    def __init__(self, *, goal_limit: float = 0.5, action_scale: float = 1.0):
        """Checks and stores the parameters.

        Args:
            goal_limit: goals are drawn from U(-goal_limit, goal_limit)², above 0.
            action_scale: move per unit of action before it is clipped to ±0.1. 1: the policy acts in metres, as in the
                benchmark; 0.1: in normalised units, as in every other family.

        Raises:
            UserError: a value of the wrong type or range.
        """
        self.goal_limit = _positive("PointNavigation.goal_limit", goal_limit)
        self.action_scale = _positive("PointNavigation.action_scale", action_scale)

    def draw_task(self, rng: np.random.Generator | np.random.RandomState) -> np.ndarray:
        """Returns one goal, [2] float64."""
        return rng.uniform(-self.goal_limit, self.goal_limit, 2)

    def starts(self, numbers: np.ndarray | None) -> np.ndarray:
        """The origin, [1, 2]."""
        return np.zeros((1, 2))

    def goals(self, tasks: np.ndarray) -> np.ndarray:
        """The tasks themselves."""
        return tasks


class PointSimulation(Simulation):
    """`n` points.

    Attributes:
        num_copies: n.
        state: [n, 2] float64, positions; read-only by convention.
    """

    def __init__(self, family: _PointFamily, num_copies: int):
        """Makes `num_copies` points for `family`, reset."""
        self._family = family
        self.num_copies = num_copies
        self.state = np.zeros((num_copies, 2))
        self.reset()

    def reset(self, indices: np.ndarray | None = None, numbers: np.ndarray | None = None) -> None:
        """Puts the points `indices` (default all) where the family's `starts` says."""
        self.state[slice(None) if indices is None else indices] = self._family.starts(numbers)

    def observe(self) -> np.ndarray:
        """Returns the positions, [n, 2]."""
        return self.state.copy()

    def step(self, actions: np.ndarray, tasks: np.ndarray) -> StepOutcome:
        """Moves every point; actions [n, 2], tasks [n, G]."""
        if actions.shape != self.state.shape:
            raise ValueError(f"actions must have shape {self.state.shape}, got {actions.shape}")
        self.state += self._family.moves(actions)
        offset = self.state - self._family.goals(tasks)
        x, y = offset[:, 0], offset[:, 1]
        arrived = np.maximum(np.abs(x), np.abs(y)) < ARRIVAL_TOLERANCE
        return StepOutcome(-np.sqrt(x * x + y * y), arrived, {})

    def perturb_state(self, noise: np.ndarray) -> None:
        """Moves every point by `noise` [n, 2]."""
        self.state += noise


def _pair(name: str, value: tuple[float, float]) -> np.ndarray:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise UserError(f"{name} must be two numbers, got {value!r}")
    return np.array([checks.real(f"{name}[{i}]", number) for i, number in enumerate(value)])


def _positive(name: str, value: float) -> float:
    number = checks.real(name, value, minimum=0.0)
    if not number > 0 or not math.isfinite(1.0 / number):
        raise UserError(f"{name} must be above 0, got {value!r}")
    return number
