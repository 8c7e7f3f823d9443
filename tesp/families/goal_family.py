"""Task families whose task is a goal in the plane (TESP specification, section 5.1).

Shapes: `n` copies, `O` observation, `A` action; a task is a goal, G = 2 numbers, in metres.
"""

import abc
import functools
import importlib.resources
from collections.abc import Sequence

import mujoco
import numpy as np

from metarl.experiment import checks
from metarl.simulation.mujoco_simulation import MujocoSimulation
from metarl.simulation.task_family import Scene, Simulation, StepOutcome, TaskFamily
from tesp.families import goals

FRAME_SKIP = 5


def clip_actions(actions: np.ndarray) -> np.ndarray:
    """Returns clip(a, -1, 1) as float64; two ufuncs take a fifth of the time of `np.clip` on a small block."""
    return np.minimum(np.maximum(np.asarray(actions, np.float64), -1.0), 1.0)


class GoalFamily(TaskFamily):
    """Reach a hidden goal; an episode ends on arrival, and every step before costs the distance.

    r = -‖p - goal‖₂ - ctrl_cost_coeff · cc, with cc = ctrl_cost_scale · Σ clip(a, -1, 1)².

    There is no arrival or survival bonus. `info_keys`: `dist_reward` [n] is -‖p - goal‖₂, `ctrl_cost` [n] is cc,
    `arrived` and `unhealthy` [n] are 0 or 1, `position` [n, 2] is p.

    Attributes:
        ctrl_cost_coeff, ctrl_cost_scale, arrival_threshold: the constructor's arguments.
        goal_parameters: where the family's goals lie.
        arrives_per_axis: the threshold holds for each axis by itself, not for the distance.
        position_columns: where the observation holds p, or None if it does not.
        unhealthy_penalty: subtracted from the reward of a step that ends unhealthy.
        healthy_heights: range of the observation's third number outside of which the state is unhealthy, or None.
    """

    arrives_per_axis: bool = False
    position_columns: tuple[int, int] | None = None
    unhealthy_penalty: float = 0.0
    healthy_heights: tuple[float, float] | None = None
    task_dim = 2
    task_key = "goal"
    ends_early = True
    info_keys = ("dist_reward", "ctrl_cost", "arrived", "unhealthy", "position")

    def __init__(
        self,
        *,
        ctrl_cost_coeff: float,
        ctrl_cost_scale: float,
        arrival_threshold: float,
        goal_parameters: goals.GoalParameters,
    ):
        """Checks and stores the reward's parameters.

        Args:
            ctrl_cost_coeff: weight of the control cost, at least 0.
            ctrl_cost_scale: factor inside the control cost, at least 0 (0.5 in the code, 1.0 in the supplement; D6).
            arrival_threshold: the task has ended when the distance is below this, metres.
            goal_parameters: where the goals lie.

        Raises:
            UserError: a value of the wrong type or range.
        """
        self.ctrl_cost_coeff = checks.real(f"{self.name}.ctrl_cost_coeff", ctrl_cost_coeff, minimum=0.0)
        self.ctrl_cost_scale = checks.real(f"{self.name}.ctrl_cost_scale", ctrl_cost_scale, minimum=0.0)
        self.arrival_threshold = checks.real(f"{self.name}.arrival_threshold", arrival_threshold, minimum=0.0)
        self.goal_parameters = checks.instance(
            f"{self.name}.goal_parameters", goal_parameters, goals.GoalParameters, "a GoalParameters"
        )

    def draw_goal(self, rng: np.random.Generator | np.random.RandomState) -> np.ndarray:
        """Returns one goal of the training distribution, [2] float64."""
        return goals.draw_goal(self.goal_parameters, rng)

    def draw_task(self, rng: np.random.Generator | np.random.RandomState) -> np.ndarray:
        """Returns one task, which is a goal."""
        return self.draw_goal(rng)

    def scene(self, task: np.ndarray) -> Scene:
        """The goal."""
        return Scene(task, f"goal {task[0]:.2f}, {task[1]:.2f}")

    def has_arrived(self, offset: np.ndarray, distance: np.ndarray) -> np.ndarray:
        """Whether p = goal + `offset` ([n, 2]) at `distance` ([n]) is close enough, [n] bool."""
        if self.arrives_per_axis:
            return (np.abs(offset) < self.arrival_threshold).all(axis=1)
        return distance < self.arrival_threshold

    def outcome(
        self, clipped_actions: np.ndarray, position: np.ndarray, tasks: np.ndarray, unhealthy: np.ndarray | None = None
    ) -> StepOutcome:
        """Rewards and ends of one step.

        Args:
            clipped_actions: [n, A] float64, in [-1, 1].
            position: [n, 2] float64, p; the caller gives the array away.
            tasks: [n, 2], goals.
            unhealthy: [n] bool, copies whose episode ends because of their state; default none.
        """
        offset = position - tasks
        distance = np.sqrt(np.vecdot(offset, offset))
        dist_reward = -distance
        ctrl_cost = self.ctrl_cost_scale * np.vecdot(clipped_actions, clipped_actions)
        arrived = self.has_arrived(offset, distance)
        info = {
            "dist_reward": dist_reward,
            "ctrl_cost": ctrl_cost,
            "arrived": arrived.astype(np.float64),
            "unhealthy": np.zeros(len(position)) if unhealthy is None else unhealthy.astype(np.float64),
            "position": position,
        }
        terminated = arrived if unhealthy is None else arrived | unhealthy
        return StepOutcome(dist_reward - self.ctrl_cost_coeff * ctrl_cost, terminated, info)


class MujocoGoalFamily(GoalFamily):
    """A `GoalFamily` simulated by MuJoCo; subclasses name their model and say what is observed.

    Attributes:
        model_file: MJCF file among the package's assets.
        body: name of the body whose frame origin is p.
        initial_qpos: [nq] state after a reset, or None for the model's own.
        fresh_kinematics: whether p and the reacher's observation are recomputed after the last physics step (D8).
    """

    threaded = True
    model_file: str
    body: str
    initial_qpos: Sequence[float] | None = None

    def __init__(
        self,
        *,
        ctrl_cost_coeff: float,
        ctrl_cost_scale: float,
        arrival_threshold: float,
        fresh_kinematics: bool,
        goal_parameters: goals.GoalParameters,
    ):
        """As `GoalFamily`, with the choice of `fresh_kinematics`."""
        super().__init__(
            ctrl_cost_coeff=ctrl_cost_coeff,
            ctrl_cost_scale=ctrl_cost_scale,
            arrival_threshold=arrival_threshold,
            goal_parameters=goal_parameters,
        )
        self.fresh_kinematics = checks.flag(f"{self.name}.fresh_kinematics", fresh_kinematics)

    @functools.cached_property
    def model(self) -> mujoco.MjModel:
        """The compiled model, shared by all simulations of this family."""
        source = importlib.resources.files("tesp.families").joinpath("assets", self.model_file)
        return mujoco.MjModel.from_xml_string(source.read_text(encoding="utf-8"))

    def make_simulation(self, num_copies: int) -> Simulation:
        """Returns `num_copies` fresh copies, reset."""
        return GoalSimulation(self, num_copies)

    @abc.abstractmethod
    def observation(self, simulation: MujocoSimulation) -> np.ndarray:
        """Returns a new array [n, O] float64 from the simulation's `qpos`, `qvel` and `body_positions`."""

    def settle(
        self, simulation: "GoalSimulation", position: np.ndarray, clipped: np.ndarray, tasks: np.ndarray
    ) -> StepOutcome:
        """Returns the outcome of a step that led to `position`; `simulation.position` is the one before it.

        A diverged copy has NaN positions, hence a NaN reward, and goes on: the trainer stops at such a number.
        """
        return self.outcome(clipped, position, tasks)


class GoalSimulation(MujocoSimulation):
    """Copies of a `MujocoGoalFamily`'s model.

    Attributes:
        position: [n, 2] float64, p as the last step or reset left it, in metres.
    """

    def __init__(self, family: MujocoGoalFamily, num_copies: int):
        """Makes `num_copies` copies for `family`, reset."""
        self._family = family
        self.position = np.zeros((num_copies, 2))
        super().__init__(
            family.model,
            num_copies,
            frame_skip=FRAME_SKIP,
            bodies=[family.body],
            initial_qpos=family.initial_qpos,
            fresh_kinematics=family.fresh_kinematics,
        )
        self._control_scale = self.model.actuator_ctrlrange[:, 1].copy()
        self._action_shape = (num_copies, self.model.nu)

    def reset(self, indices: np.ndarray | None = None, numbers: np.ndarray | None = None) -> None:
        """Puts the copies `indices` (int [k], default all) into the initial state; `numbers` has no column."""
        super().reset(indices)
        chosen = slice(None) if indices is None else indices
        # A new array: the old one belongs to whoever got the last outcome.
        self.position = self.position.copy()
        self.position[chosen] = self.body_positions[chosen, 0, :2]

    def observe(self) -> np.ndarray:
        """Returns the observations of all copies, [n, O] float64."""
        return self._family.observation(self)

    def step(self, actions: np.ndarray, tasks: np.ndarray) -> StepOutcome:
        """Applies u = ub · clip(a, -1, 1) for 0.05 s; actions [n, A], tasks [n, 2]."""
        if actions.shape != self._action_shape:
            raise ValueError(f"actions must have shape {self._action_shape}, got {actions.shape}")
        clipped = clip_actions(actions)
        self.advance(clipped * self._control_scale)
        outcome = self._family.settle(self, self.body_positions[:, 0, :2].copy(), clipped, tasks)
        self.position = outcome.info["position"]
        return outcome
