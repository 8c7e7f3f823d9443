"""The point mass, for debugging and fast tests (TESP specification, section 5.6)."""

import gin
import numpy as np

from metarl.simulation.task_family import Simulation, StepOutcome
from tesp.families.goal_family import GoalFamily, clip_actions
from tesp.families.goals import GoalParameters

STEP_SIZE = 0.05
OBSERVATION_LIMIT = 5.0


@gin.configurable(module="tesp")
class Point(GoalFamily):
    """A point that moves by 0.05 · clip(a, -1, 1) per step and axis; p is the point.

    Observation (O = 2): x, y clipped to ±5. Actions (A = 2). There is no control cost: its scale is 0 by default.
    """

    name = "point"
    observation_dim = 2
    action_dim = 2
    state_dim = 2
    arrives_per_axis = True
    position_columns = (0, 1)

    def __init__(
        self,
        *,
        ctrl_cost_coeff: float = 1e-3,
        ctrl_cost_scale: float = 0.0,
        arrival_threshold: float = 0.01,
        goal_parameters: GoalParameters | None = None,
    ):
        """See `GoalFamily` for the arguments and errors; the arrival threshold holds for each axis by itself."""
        super().__init__(
            ctrl_cost_coeff=ctrl_cost_coeff,
            ctrl_cost_scale=ctrl_cost_scale,
            arrival_threshold=arrival_threshold,
            goal_parameters=GoalParameters(
                inner_radius=0.2, near_radius=0.7, far_radius=1.0, min_distance=0.01, proposal_half_width=1.0
            )
            if goal_parameters is None
            else goal_parameters,
        )

    def make_simulation(self, num_copies: int) -> Simulation:
        """Returns `num_copies` fresh points at the origin."""
        return PointSimulation(self, num_copies)


class PointSimulation(Simulation):
    """`n` points.

    Attributes:
        num_copies: n.
        state: [n, 2] float64, metres.
    """

    def __init__(self, family: Point, num_copies: int):
        """Makes `num_copies` points for `family`, at the origin."""
        self._family = family
        self.num_copies = num_copies
        self.state = np.zeros((num_copies, 2))

    def reset(self, indices: np.ndarray | None = None, numbers: np.ndarray | None = None) -> None:
        """Puts the points `indices` (default all) at the origin; `numbers` has no column."""
        self.state[slice(None) if indices is None else indices] = 0.0

    def observe(self) -> np.ndarray:
        """Returns the positions clipped to ±5, [n, 2]."""
        return np.clip(self.state, -OBSERVATION_LIMIT, OBSERVATION_LIMIT)

    def step(self, actions: np.ndarray, tasks: np.ndarray) -> StepOutcome:
        """Moves every point; actions [n, 2], tasks [n, 2]."""
        if actions.shape != self.state.shape:
            raise ValueError(f"actions must have shape {self.state.shape}, got {actions.shape}")
        clipped = clip_actions(actions)
        self.state += STEP_SIZE * clipped
        return self._family.outcome(clipped, self.state.copy(), tasks)

    def perturb_state(self, noise: np.ndarray) -> None:
        """Moves every point by `noise` [n, 2]."""
        self.state += noise
