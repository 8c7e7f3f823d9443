"""What a task family is: many tasks that share dynamics and spaces, and differ in a parameter such as a goal.

Shapes: `n` copies of the simulated system, `O` observation, `A` action, `G` numbers that describe a task.
"""

import abc
from typing import NamedTuple

import numpy as np


class StepOutcome(NamedTuple):
    """What one control step did to `n` copies.

    Attributes:
        reward: [n] float64.
        terminated: [n] bool, the task ended by itself (never by a time limit).
        info: per-copy arrays by name, each [n] or [n, k]; the keys are the family's `info_keys`.
    """

    reward: np.ndarray
    terminated: np.ndarray
    info: dict[str, np.ndarray]


class Scene(NamedTuple):
    """What a picture of a task shows beside the simulated system.

    Attributes:
        goal: [2] or [3] float64, the place to mark, in the units of the system's space; None: there is none.
        caption: what the task asks for, in a few words; "" if the picture says it.
    """

    goal: np.ndarray | None = None
    caption: str = ""


class Simulation(abc.ABC):
    """`n` copies of one system, stepped in lock-step by the calling thread.

    A simulation is not thread-safe; parallelism comes from one simulation per thread.
    """

    num_copies: int

    @property
    def drawn(self) -> "Simulation":
        """The simulation whose state a picture shows: itself, or the one that it wraps."""
        return self

    @abc.abstractmethod
    def reset(self, indices: np.ndarray | None = None, numbers: np.ndarray | None = None) -> None:
        """Puts the copies `indices` (int [k], default all) into the initial state.

        Args:
            indices: copies to reset.
            numbers: [k, reset_dim] float64, random numbers that `TaskFamily.draw_reset` drew, one row per copy; None
                resets without randomness, which is all that families with `reset_dim` 0 know.
        """

    def assign_tasks(self, tasks: np.ndarray) -> None:  # noqa: B027  (optional by intention)
        """Says which task ([n, G]) each copy works on until further notice, before a reset.

        Families whose tasks differ in physical parameters change the copies' models here; this one does nothing.
        """

    @abc.abstractmethod
    def observe(self) -> np.ndarray:
        """Returns the observations of all copies, [n, O] float64; the caller may keep the array."""

    @abc.abstractmethod
    def step(self, actions: np.ndarray, tasks: np.ndarray) -> StepOutcome:
        """Applies one action to every copy for one control period.

        Args:
            actions: [n, A] in the policy's normalised units, unclipped.
            tasks: [n, G], the task each copy is working on.
        """

    def select(self, copies: np.ndarray | None) -> None:  # noqa: B027  (optional by intention)
        """Says which copies (int [k]; None: all) the caller still looks at, until the next call.

        A simulation may leave the others unstepped and return anything in their rows; this one steps them all.
        """

    def use_threads(self, num_threads: int) -> None:  # noqa: B027  (optional by intention)
        """Shares every step among `num_threads` threads, the caller's included, from now on.

        Neither the state nor any result depends on it. A simulation may do without; this one does.
        """

    @abc.abstractmethod
    def perturb_state(self, noise: np.ndarray) -> None:
        """Adds `noise` ([n, state_dim]) to the copies' state (positions, then velocities)."""


class TaskFamily(abc.ABC):
    """A distribution of tasks over one simulated system.

    Attributes:
        name: how configurations and error messages call the family.
        observation_dim, action_dim, task_dim: O, A, G.
        state_dim: numbers that `Simulation.perturb_state` takes per copy.
        ends_early: whether an episode can terminate before the horizon. It decides the capacity S of `Steps`.
        info_keys: the keys of `StepOutcome.info`.
        task_key: what the Gymnasium face calls a task, in its reset options and in `info`.
        threaded: whether the family's simulations make use of `Simulation.use_threads`.
        reset_dim: random numbers that a reset of one copy takes; 0: resets are deterministic.
    """

    name: str
    observation_dim: int
    action_dim: int
    task_dim: int
    state_dim: int
    ends_early: bool
    info_keys: tuple[str, ...]
    task_key: str = "task"
    threaded: bool = False
    reset_dim: int = 0

    @abc.abstractmethod
    def make_simulation(self, num_copies: int) -> Simulation:
        """Returns `num_copies` fresh copies, reset."""

    def draw_task(self, rng: np.random.Generator | np.random.RandomState) -> np.ndarray:
        """Returns one task of the family's own distribution, [G] float64."""
        raise NotImplementedError(f"{self.name} has no distribution of tasks of its own")

    def draw_reset(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Returns the random numbers of `count` resets, [count, reset_dim] float64, drawn row by row."""
        if self.reset_dim:
            raise NotImplementedError(f"{self.name} takes {self.reset_dim} numbers per reset but does not draw them")
        return np.zeros((count, 0))

    def scene(self, task: np.ndarray) -> Scene:
        """Returns what a picture of `task` [G] shows beside the system; this one: nothing."""
        del task
        return Scene()
