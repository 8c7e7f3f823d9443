"""The four-legged ant (TESP specification, section 5.3)."""

import gin
import numpy as np

from metarl.experiment import checks
from metarl.simulation.mujoco_simulation import MujocoSimulation
from metarl.simulation.task_family import StepOutcome
from tesp.families.goal_family import GoalSimulation, MujocoGoalFamily
from tesp.families.goals import GoalParameters

# Torso heights between which the ant counts as standing, metres.
HEALTHY_Z = (0.15, 0.45)


@gin.configurable(module="tesp")
class Ant(MujocoGoalFamily):
    """An ant with eight joints; p is the torso's origin, and an episode also ends when the ant is unhealthy.

    Observation (O = 29): qpos (x, y, z, quaternion w x y z, then hip and ankle angles of legs 1 to 4), then qvel (14).
    Actions (A = 8): joint servos ±50, leg 4 first.

    Unhealthy: the torso's height left [0.15, 0.45] m, or any number of the state is not finite. By default neither is
    penalised: the stream of costs just ends (D10). A state that is not finite has no position; its reward is that of
    the copy's last finite one, so that a simulator's divergence ends an episode and not the run.
    """

    name = "ant"
    observation_dim = 29
    action_dim = 8
    state_dim = 29
    model_file = "ant.xml"
    body = "torso"
    position_columns = (0, 1)
    healthy_heights = HEALTHY_Z
    initial_qpos = (0.0, 0.0, 0.25, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, -1.0, 0.0, -1.0, 0.0, 1.0)

    def __init__(
        self,
        *,
        ctrl_cost_coeff: float = 1e-3,
        ctrl_cost_scale: float = 0.5,
        arrival_threshold: float = 0.03,
        unhealthy_penalty: float = 0.0,
        fresh_kinematics: bool = False,
        goal_parameters: GoalParameters | None = None,
    ):
        """See `MujocoGoalFamily` for the arguments and errors; goals default to section 5.7's.

        Args:
            ctrl_cost_coeff: weight of the control cost.
            ctrl_cost_scale: factor inside the control cost.
            arrival_threshold: distance of arrival, metres.
            unhealthy_penalty: subtracted from the reward of the step that ends unhealthy, at least 0 (D10).
            fresh_kinematics: recompute the torso's position after the last physics step.
            goal_parameters: where the goals lie.
        """
        super().__init__(
            ctrl_cost_coeff=ctrl_cost_coeff,
            ctrl_cost_scale=ctrl_cost_scale,
            arrival_threshold=arrival_threshold,
            fresh_kinematics=fresh_kinematics,
            goal_parameters=GoalParameters() if goal_parameters is None else goal_parameters,
        )
        self.unhealthy_penalty = checks.real(f"{self.name}.unhealthy_penalty", unhealthy_penalty, minimum=0.0)

    def observation(self, simulation: MujocoSimulation) -> np.ndarray:
        """Returns the observations of all copies, [n, 29] float64."""
        return np.concatenate([simulation.qpos, simulation.qvel], axis=1)

    def settle(
        self, simulation: GoalSimulation, position: np.ndarray, clipped: np.ndarray, tasks: np.ndarray
    ) -> StepOutcome:
        """Returns the outcome of a step, unhealthy ends included."""
        diverged = simulation.diverged
        height = simulation.qpos[:, 2]
        # Written so that a NaN height is unhealthy.
        unhealthy = ~((height >= HEALTHY_Z[0]) & (height <= HEALTHY_Z[1])) | diverged
        if diverged.any():
            position[diverged] = simulation.position[diverged]
        outcome = self.outcome(clipped, position, tasks, unhealthy)
        if self.unhealthy_penalty:
            outcome.reward[unhealthy] -= self.unhealthy_penalty
        return outcome
