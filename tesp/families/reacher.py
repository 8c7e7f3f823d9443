"""The planar arms with two and four links (TESP specification, sections 5.4 and 5.5)."""

import gin
import numpy as np

from metarl.simulation.mujoco_simulation import MujocoSimulation
from tesp.families.goal_family import MujocoGoalFamily
from tesp.families.goals import GoalParameters


class _Reacher(MujocoGoalFamily):
    """An arm of `action_dim` links in the horizontal plane; p is the fingertip.

    Observation (O = 3A + 2): cos of the joint angles, sin of them, joint velocities (rad/s), fingertip x, y (m).
    """

    body = "fingertip"

    def observation(self, simulation: MujocoSimulation) -> np.ndarray:
        """Returns the observations of all copies, [n, 3A + 2] float64; the fingertip is as stale as the reward's."""
        links = self.action_dim
        observation = np.empty((simulation.num_copies, self.observation_dim))
        np.cos(simulation.qpos, out=observation[:, :links])
        np.sin(simulation.qpos, out=observation[:, links : 2 * links])
        observation[:, 2 * links : 3 * links] = simulation.qvel
        observation[:, 3 * links :] = simulation.body_positions[:, 0, :2]
        return observation


@gin.configurable(module="tesp")
class Reacher2Link(_Reacher):
    """Two links, reach 1.7 m; O = 8, A = 2, joint servos ±100."""

    name = "reacher_2link"
    observation_dim = 8
    action_dim = 2
    state_dim = 4
    model_file = "reacher_2link.xml"
    position_columns = (6, 7)

    def __init__(
        self,
        *,
        ctrl_cost_coeff: float = 1e-3,
        ctrl_cost_scale: float = 0.5,
        arrival_threshold: float = 0.06,
        fresh_kinematics: bool = False,
        goal_parameters: GoalParameters | None = None,
    ):
        """See `MujocoGoalFamily` for the arguments and errors; goals default to section 5.7's."""
        super().__init__(
            ctrl_cost_coeff=ctrl_cost_coeff,
            ctrl_cost_scale=ctrl_cost_scale,
            arrival_threshold=arrival_threshold,
            fresh_kinematics=fresh_kinematics,
            goal_parameters=GoalParameters() if goal_parameters is None else goal_parameters,
        )


@gin.configurable(module="tesp")
class Reacher4Link(_Reacher):
    """Four links, reach 2.0 m; O = 14, A = 4, joint servos ±50. Goals keep 0.11 m apart, not 0.1."""

    name = "reacher_4link"
    observation_dim = 14
    action_dim = 4
    state_dim = 8
    model_file = "reacher_4link.xml"
    position_columns = (12, 13)

    def __init__(
        self,
        *,
        ctrl_cost_coeff: float = 1e-3,
        ctrl_cost_scale: float = 0.5,
        arrival_threshold: float = 0.11,
        fresh_kinematics: bool = False,
        goal_parameters: GoalParameters | None = None,
    ):
        """See `MujocoGoalFamily` for the arguments and errors; goals default to section 5.7's."""
        super().__init__(
            ctrl_cost_coeff=ctrl_cost_coeff,
            ctrl_cost_scale=ctrl_cost_scale,
            arrival_threshold=arrival_threshold,
            fresh_kinematics=fresh_kinematics,
            goal_parameters=GoalParameters(min_distance=0.11) if goal_parameters is None else goal_parameters,
        )
