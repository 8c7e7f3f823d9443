"""Reaching with a 7-joint arm like the PR2's (specification, sections 7.2 and 7.4)."""

from typing import Any

import gin
import mujoco
import numpy as np
import tensorflow as tf

from mbmpo.families.base import RESET_QPOS_STD, RESET_QVEL_STD, MujocoFamilySimulation
from mbmpo.families.control_cost import ScaledControlFamily, squared_norm
from metarl.simulation.task_family import StepOutcome

JOINTS = 7

# Where the PR2 carries its right shoulder, metres: the mirror image of the left one, for which the original's box of
# goals, y from 0.25 to 0.75, was made. That box is mirrored too.
SHOULDER = (-0.05, -0.188, 0.790675)
GOAL_LOW = np.array([0.4, -0.75, 0.6])
GOAL_HIGH = np.array([0.6, -0.25, 1.0])

# Between the two tips of the hand, in the frame of the last link.
TIP = (0.1, 0.0, 0.0)


@gin.configurable(module="mbmpo")
class PR2Reach(ScaledControlFamily):
    """A stand-in for the PR2, whose meshes cannot be had: the arm of gymnasium's pusher has its joints and links.

    Taken from the pusher: joints, links, masses, damping, armature and physics step (0.01 s, five per control step);
    table and object are removed, gravity is off, motors reach ±3, and the shoulder is where the PR2 has it. The goal is
    the last three numbers of qpos, drawn anew at every reset from U([0.4, -0.75, 0.6], [0.6, -0.25, 1.0]) in metres;
    it rests. There are no contacts and no early end.

    Observation (O = 17): joint angles (7, rad), joint velocities (7, rad/s), vector from the tip to the goal (3, m).
    Actions (A = 7), normalised.

    Reward, real: -‖tip - goal‖² before the step - 0.005 ‖u / 3‖², u the control. Imagined: -‖o'[-3:]‖² - 0.005 ‖a / 3‖²
    with the normalised action a (O-11) unless asked otherwise. A reset's numbers are the standard normal noise of joint
    positions and velocities, then the goal.
    """

    name = "pr2_reach"
    observation_dim = 17
    action_dim = JOINTS
    control_limit = 3.0
    control_cost = 0.005
    model_file = "pusher_v5.xml"
    frame_skip = 5
    memory = 1 << 16
    fields = ("site_xpos",)
    stage = mujoco.mjtStage.mjSTAGE_POS
    info_keys = ("distance", "reward_ctrl")

    def edit(self, spec: mujoco.MjSpec) -> None:
        """Removes what is pushed, hangs the arm at the PR2's shoulder, adds the tip and the goal."""
        for name in ("object", "goal"):
            spec.delete(spec.body(name))
        spec.delete(spec.geom("table"))
        spec.option.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_CONTACT)
        spec.body("r_shoulder_pan_link").pos = SHOULDER
        for actuator in spec.actuators:
            actuator.ctrlrange = (-self.control_limit, self.control_limit)
        spec.body("r_wrist_roll_link").add_site(name="tip", pos=TIP)
        goal = spec.worldbody.add_body(name="goal")
        goal.add_geom(name="goal", type=mujoco.mjtGeom.mjGEOM_SPHERE, size=(0.03, 0.0, 0.0), rgba=(1.0, 0.0, 0.0, 1.0))
        for name, axis in (("goal_x", (1, 0, 0)), ("goal_y", (0, 1, 0)), ("goal_z", (0, 0, 1))):
            goal.add_joint(
                name=name,
                type=mujoco.mjtJoint.mjJNT_SLIDE,
                axis=axis,
                limited=mujoco.mjtLimited.mjLIMITED_FALSE,
                armature=0.0,
                damping=[0.0, 0.0, 0.0],
            )

    @property
    def reset_dim(self) -> int:  # type: ignore[override]
        """Noise of seven positions and seven velocities, then the goal."""
        return 2 * JOINTS + 3

    def draw_reset(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Returns [count, 17]: standard normal numbers (14), goal (3, m)."""
        numbers = np.empty((count, self.reset_dim))
        for row in numbers:
            rng.standard_normal(out=row[: 2 * JOINTS])
            row[2 * JOINTS :] = rng.uniform(GOAL_LOW, GOAL_HIGH)
        return numbers

    def reset_state(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `MujocoTaskFamily`; the goal's slides rest."""
        noise, goal = numbers[:, : 2 * JOINTS], numbers[:, 2 * JOINTS :]
        qpos = np.concatenate([self.start_qpos[:JOINTS] + RESET_QPOS_STD * noise[:, :JOINTS], goal], axis=1)
        qvel = np.concatenate([RESET_QVEL_STD * noise[:, JOINTS:], np.zeros_like(goal)], axis=1)
        return qpos, qvel

    def observation(self, qpos: np.ndarray, qvel: np.ndarray, fields: dict[str, np.ndarray]) -> np.ndarray:
        """Returns [n, 17] float64."""
        to_goal = qpos[:, JOINTS:] - fields["site_xpos"][:, 0]
        return np.concatenate([qpos[:, :JOINTS], qvel[:, :JOINTS], to_goal], axis=1)

    def remember(self, simulation: MujocoFamilySimulation) -> np.ndarray:
        """Returns the squared distance of tip and goal, [n]."""
        to_goal = simulation.qpos[:, JOINTS:] - simulation.fields["site_xpos"][:, 0]
        return np.vecdot(to_goal, to_goal)

    def settle(
        self, simulation: MujocoFamilySimulation, before: Any, controls: np.ndarray, tasks: np.ndarray
    ) -> StepOutcome:
        """Returns -(squared distance before the step) - (control cost); `distance` is the one after the step."""
        control = -self.real_cost(controls)
        return StepOutcome(
            control - before,
            np.zeros(simulation.num_copies, bool),
            {"distance": np.sqrt(self.remember(simulation)), "reward_ctrl": control},
        )

    def reward(self, observation: tf.Tensor, action: tf.Tensor, next_observation: tf.Tensor) -> tf.Tensor:
        """Batch reward -‖o'[-3:]‖² - 0.005 ‖a / 3‖², [...]."""
        return -squared_norm(next_observation[..., -3:]) - self.imagined_cost(action)
