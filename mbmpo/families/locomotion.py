"""What the running, hopping, walking and swimming families share (specification, sections 7.1 and 7.2).

Shapes: `n` copies, `O` observation, `A` action.
"""

from typing import Any

import numpy as np
import tensorflow as tf

from mbmpo.families.base import REWARD_LIMIT, MujocoFamily, MujocoFamilySimulation, clip_reward
from mbmpo.families.random_parameters import RandomParameters
from metarl.experiment import checks
from metarl.simulation.task_family import StepOutcome

# What hopper and walker are observed to move at, at most; m/s and rad/s.
VELOCITY_LIMIT = 10.0


class Locomotion(MujocoFamily):
    """Move along +x: reward v + alive_bonus - control_cost ‖a‖², with actuators of ±1.

    Real steps take the clipped action and, if `mean_velocity`, v = Δx / dt, the mean over the step. Imagined ones take
    the entry of the next observation that holds the velocity at the end of the step (O-12), and the policy's action
    unclipped (O-11). With a target velocity, -|v - target| takes the place of v in both (O-20).

    `info_keys`: `reward_run` [n] is v or -|v - target|, `reward_ctrl` [n] is -control_cost ‖a‖².

    Attributes:
        velocity_index: where the observation holds the forward velocity.
        control_cost, alive_bonus: see above.
        mean_velocity: see above.
        clips_reward: keep the real reward within ±1000.
        clips_model_reward: keep the imagined reward within ±1000.
    """

    velocity_index: int
    control_cost: float
    alive_bonus: float = 0.0
    mean_velocity: bool = True
    clips_reward: bool = True
    clips_model_reward: bool = True

    def __init__(
        self,
        *,
        target_velocity: float | None = None,
        clip_action_in_model_reward: bool = False,
        random_parameters: RandomParameters | None = None,
    ):
        """Checks and stores the choices.

        Args:
            target_velocity: m/s; default: the faster, the better.
            clip_action_in_model_reward: let the batch reward see the action clipped to ±1.
            random_parameters: physical parameters that a task changes; default none.

        Raises:
            UserError: a value of the wrong type.
        """
        super().__init__(random_parameters=random_parameters)
        name = type(self).__name__
        if target_velocity is not None:
            target_velocity = checks.real(f"{name}.target_velocity", target_velocity)
        self.target_velocity = target_velocity
        self.clip_action_in_model_reward = checks.flag(
            f"{name}.clip_action_in_model_reward", clip_action_in_model_reward
        )

    def has_ended(self, simulation: MujocoFamilySimulation) -> np.ndarray:
        """Whether the real episode ends in the present state, [n] bool."""
        return np.zeros(simulation.num_copies, bool)

    def settle(
        self, simulation: MujocoFamilySimulation, before: Any, controls: np.ndarray, tasks: np.ndarray
    ) -> StepOutcome:
        """Returns reward and end of a step.

        A diverged copy has no velocity: where episodes can end, it ends with reward 0; else its reward is NaN.
        """
        if self.mean_velocity:
            run = (simulation.qpos[:, 0] - before) / self.control_period
        else:
            run = simulation.qvel[:, 0].copy()
        if self.target_velocity is not None:
            run = -np.abs(run - self.target_velocity)
        control = -self.control_cost * np.vecdot(controls, controls)
        reward = run + self.alive_bonus + control
        if self.clips_reward:
            reward = clip_reward(reward)
        ended = self.has_ended(simulation)
        diverged = simulation.diverged
        if diverged.any():
            if self.ends_early:
                reward[diverged] = 0.0
            ended |= diverged & self.ends_early
        return StepOutcome(reward, ended, {"reward_run": run, "reward_ctrl": control})

    def reward(self, observation: tf.Tensor, action: tf.Tensor, next_observation: tf.Tensor) -> tf.Tensor:
        """Batch reward, [...]; see the class."""
        run = next_observation[..., self.velocity_index]
        if self.target_velocity is not None:
            run = -tf.abs(run - self.target_velocity)
        if self.clip_action_in_model_reward:
            action = tf.clip_by_value(action, -1.0, 1.0)
        reward = run + self.alive_bonus - self.control_cost * tf.reduce_sum(tf.square(action), axis=-1)
        return tf.clip_by_value(reward, -REWARD_LIMIT, REWARD_LIMIT) if self.clips_model_reward else reward


class Upright(Locomotion):
    """A planar body that must not fall, with a control period of its own choice (O-18).

    Observation: qpos without x, then qvel within ±10.
    """

    ends_early = True
    can_terminate = True
    control_cost = 0.001
    alive_bonus = 1.0

    def __init__(
        self,
        *,
        timestep: float = 0.004,
        frame_skip: int = 5,
        target_velocity: float | None = None,
        clip_action_in_model_reward: bool = False,
        random_parameters: RandomParameters | None = None,
    ):
        """See `Locomotion` for the other arguments and the errors.

        Args:
            timestep: seconds per physics step, above 0; 0.002 in the submission (O-18).
            frame_skip: physics steps per control step, at least 1; 4 in the submission.
            target_velocity: m/s.
            clip_action_in_model_reward: let the batch reward see the action clipped to ±1.
            random_parameters: physical parameters that a task changes.
        """
        name = type(self).__name__
        self.timestep = checks.real(f"{name}.timestep", timestep, minimum=1e-6)
        self.frame_skip = checks.integer(f"{name}.frame_skip", frame_skip, minimum=1)
        super().__init__(
            target_velocity=target_velocity,
            clip_action_in_model_reward=clip_action_in_model_reward,
            random_parameters=random_parameters,
        )

    def observation(self, qpos: np.ndarray, qvel: np.ndarray, fields: dict[str, np.ndarray]) -> np.ndarray:
        """Returns a new array [n, O] float64."""
        return np.concatenate([qpos[:, 1:], np.clip(qvel, -VELOCITY_LIMIT, VELOCITY_LIMIT)], axis=1)


def all_finite(x: tf.Tensor) -> tf.Tensor:
    """Whether every number of the last axis is finite, [...] bool."""
    return tf.reduce_all(tf.math.is_finite(x), axis=-1)
