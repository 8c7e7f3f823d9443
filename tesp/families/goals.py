"""Goal sets and task batches (TESP specification, sections 3.1, 3.2 and 5.7).

Shapes: `N` goals per set, `M` tasks (meta-batch).
"""

import dataclasses
import math
from typing import NamedTuple, Protocol

import gin
import numpy as np

from metarl.experiment import checks
from metarl.experiment.errors import UserError

# Beyond this many proposals for one set the goals asked for do not fit; the largest reference set needs 8,424.
_MAX_PROPOSALS = 200_000


@gin.configurable(module="tesp")
@dataclasses.dataclass(frozen=True, kw_only=True)
class GoalParameters:
    """Where the goals of a family lie, in metres (TESP specification, section 5.7).

    Attributes:
        inner_radius: goals of D and D' are farther from the origin than this.
        near_radius: goals of D and D' are nearer than this, those of D'' farther.
        far_radius: goals of D'' are nearer than this.
        min_distance: least distance between goals of a set (and of D' to D).
        proposal_half_width: proposals are uniform in a square of twice this width.

    Raises:
        UserError: a value of the wrong type, or radii that do not grow.
    """

    inner_radius: float = 0.2
    near_radius: float = 1.1
    far_radius: float = 1.5
    min_distance: float = 0.1
    proposal_half_width: float = 1.5

    def __post_init__(self):
        for field in dataclasses.fields(self):
            checks.real(f"GoalParameters.{field.name}", getattr(self, field.name), minimum=0.0)
        if not self.inner_radius < self.near_radius < self.far_radius:
            raise UserError(
                "GoalParameters: inner_radius < near_radius < far_radius must hold, got "
                f"{self.inner_radius}, {self.near_radius}, {self.far_radius}"
            )
        if self.near_radius >= self.proposal_half_width * math.sqrt(2.0):
            raise UserError(
                f"GoalParameters.proposal_half_width {self.proposal_half_width} leaves no room for goals beyond "
                f"near_radius {self.near_radius}"
            )


class HasGoals(Protocol):
    """A family whose tasks are goals."""

    goal_parameters: GoalParameters


class GoalSets(NamedTuple):
    """The three fixed sets of goals, each [N, 2] float64, in metres.

    Attributes:
        train: D, the tasks of meta-training.
        test_1: D', novel tasks of the same distribution.
        test_2: D'', novel tasks farther out.
    """

    train: np.ndarray
    test_1: np.ndarray
    test_2: np.ndarray


def draw_goal_sets(family: HasGoals, seed: int, num_goals: int = 100) -> GoalSets:
    """Returns the goal sets that `seed` draws for `family`; the same seed gives the same goals on every platform.

    Raises:
        UserError: the goals do not fit, or `seed` or `num_goals` is out of range.
    """
    return _draw(family.goal_parameters, seed, num_goals)[0]


def task_batch_stream(family: HasGoals, seed: int, num_goals: int = 100) -> np.random.RandomState:
    """Returns the stream that draws a run's task batches.

    It is RandomState(seed) advanced past that seed's own goal sets: a run whose goals come from the same seed has the
    reference's task batches, and other runs have batches independent of the goals.

    Raises:
        UserError: as `draw_goal_sets`.
    """
    return _draw(family.goal_parameters, seed, num_goals)[1]


def draw_task_batch(rng: np.random.RandomState, num_goals: int, meta_batch_size: int) -> np.ndarray:
    """Returns M distinct indices into a goal set, int [M]; task i of the meta-batch gets goal `indices[i]`.

    Raises:
        UserError: M is larger than the goal set or below 1.
    """
    checks.integer("meta_batch_size", meta_batch_size, minimum=1)
    if meta_batch_size > num_goals:
        raise UserError(f"meta_batch_size {meta_batch_size} is larger than the goal set of {num_goals} goals")
    return rng.choice(num_goals, meta_batch_size, replace=False)


def draw_goal(parameters: GoalParameters, rng: np.random.Generator | np.random.RandomState) -> np.ndarray:
    """Returns one goal of the training distribution, [2] float64, without regard to other goals."""
    return _propose(rng, parameters, parameters.inner_radius, parameters.near_radius, [], "goal")


def _draw(parameters: GoalParameters, seed: int, num_goals: int) -> tuple[GoalSets, np.random.RandomState]:
    checks.integer("goal seed", seed, minimum=0, maximum=2**32 - 1)
    checks.integer("num_goals", num_goals, minimum=1)
    rng = np.random.RandomState(seed)
    p = parameters
    train: list[np.ndarray] = []
    near: list[np.ndarray] = []
    test_2: list[np.ndarray] = []
    for _ in range(num_goals):
        train.append(_propose(rng, p, p.inner_radius, p.near_radius, train, "train"))
    near.extend(train)
    for _ in range(num_goals):
        near.append(_propose(rng, p, p.inner_radius, p.near_radius, near, "test_1"))
    for _ in range(num_goals):
        test_2.append(_propose(rng, p, p.near_radius, p.far_radius, test_2, "test_2"))
    return GoalSets(np.array(train), np.array(near[num_goals:]), np.array(test_2)), rng


def _propose(
    rng: np.random.Generator | np.random.RandomState,
    parameters: GoalParameters,
    low: float,
    high: float,
    others: list[np.ndarray],
    goal_set: str,
) -> np.ndarray:
    """Draws until a proposal has a radius in (low, high) and keeps its distance to `others`."""
    width, min_distance = parameters.proposal_half_width, parameters.min_distance
    taken = np.array(others).reshape(-1, 2)
    for _ in range(_MAX_PROPOSALS):
        goal = rng.uniform(-width, width, size=2)
        if low < math.hypot(goal[0], goal[1]) < high and (
            not others or np.linalg.norm(taken - goal, axis=1).min() >= min_distance
        ):
            return goal
    raise UserError(
        f"no room for another {goal_set} goal after {len(others)}: radius {low} to {high}, "
        f"distance {min_distance}; ask for fewer goals or a smaller min_distance"
    )
