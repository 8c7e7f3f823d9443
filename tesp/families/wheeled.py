"""The differential-drive car (TESP specification, section 5.2)."""

import gin
import numpy as np

from metarl.simulation.mujoco_simulation import MujocoSimulation
from tesp.families.goal_family import MujocoGoalFamily
from tesp.families.goals import GoalParameters


@gin.configurable(module="tesp")
class Wheeled(MujocoGoalFamily):
    """A car on two driven wheels; p is the car body's origin.

    Observation (O = 9): x, y, z, sin(yaw), cos(yaw), their linear velocities (m/s) and the yaw rate (rad/s). Wheel
    angles and speeds are not observed. Actions (A = 2): the wheels' servos, ±50.
    """

    name = "wheeled"
    observation_dim = 9
    action_dim = 2
    state_dim = 12
    model_file = "wheeled.xml"
    body = "car"
    position_columns = (0, 1)

    def __init__(
        self,
        *,
        ctrl_cost_coeff: float = 1e-3,
        ctrl_cost_scale: float = 0.5,
        arrival_threshold: float = 0.02,
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

    def observation(self, simulation: MujocoSimulation) -> np.ndarray:
        """Returns the observations of all copies, [n, 9] float64."""
        qpos = simulation.qpos
        observation = np.empty((simulation.num_copies, 9))
        observation[:, :3] = qpos[:, :3]
        np.sin(qpos[:, 3], out=observation[:, 3])
        np.cos(qpos[:, 3], out=observation[:, 4])
        observation[:, 5:] = simulation.qvel[:, :4]
        return observation
