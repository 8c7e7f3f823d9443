"""A goal family with one goal, as a single task that can be imagined: for methods that learn a model of the dynamics.

Not imported with `tesp.families`, because batch rewards need TensorFlow. Shapes: `n` copies, `O` observation, `A`
action, leading axes `...` are free.
"""

from collections.abc import Sequence
from typing import Any

import gin
import numpy as np
import tensorflow as tf

from metarl.experiment import checks
from metarl.experiment.errors import UserError
from metarl.simulation.imaginable import ImaginableFamily
from metarl.simulation.task_family import Scene, Simulation, StepOutcome
from tesp.families.goal_family import GoalFamily
from tesp.families.goals import draw_goal_sets


@gin.configurable(module="tesp")
class FixedGoal(ImaginableFamily):
    """One goal of a TESP family (TESP specification, section 5), with reward and end as functions of the observation.

    Reward -‖p' - goal‖₂ - ctrl_cost_coeff · ctrl_cost_scale · Σ clip(a, -1, 1)², p' being the position in the next
    observation; the episode ends on arrival, and the ant's when it is unhealthy. The real reward is the family's own,
    and its p may be stale (section 5.1): for wheeled it lags the observed position by 0.01 s, for the ant by an
    integration error; the reachers observe the stale one, so that both agree. `fresh_kinematics` removes the lag. Point
    observes positions within ±5 only, beyond which the imagined reward stays behind.

    Attributes:
        family: the family.
        goal: [2] float64, metres.
    """

    task_dim = 0
    reset_dim = 0
    can_terminate = True

    def __init__(self, *, family: GoalFamily = gin.REQUIRED, goal: Sequence[float] | None = None, goal_seed: int = 1):
        """Checks and stores the choices.

        Args:
            family: `@Wheeled()`, `@Ant()`, `@Reacher2Link()`, `@Reacher4Link()` or `@Point()`.
            goal: x, y in metres; default: the first training goal that `goal_seed` draws.
            goal_seed: draws the goal sets.

        Raises:
            UserError: a value of the wrong type, or a family whose observation does not hold the position.
        """
        checks.instance("FixedGoal.family", family, GoalFamily, "a task family of goals such as @Reacher2Link()")
        if family.position_columns is None:
            raise UserError(
                f"FixedGoal.family: {family.name} has no batch reward, because its observation does not hold the "
                "position that the reward is about"
            )
        goal_seed = checks.integer("FixedGoal.goal_seed", goal_seed, minimum=0, maximum=2**32 - 1)
        self.family = family
        self.goal = draw_goal_sets(family, goal_seed, 1).train[0] if goal is None else _goal(goal)
        self.name = f"{family.name}_fixed_goal"
        self.observation_dim, self.action_dim = family.observation_dim, family.action_dim
        self.state_dim, self.info_keys = family.state_dim, family.info_keys
        self.ends_early, self.threaded = family.ends_early, family.threaded
        self._columns = family.position_columns
        self._initial_observation: np.ndarray | None = None

    def make_simulation(self, num_copies: int) -> Simulation:
        """Returns `num_copies` fresh copies, reset."""
        return _FixedGoalSimulation(self, num_copies)

    def draw_task(self, rng: np.random.Generator | np.random.RandomState) -> np.ndarray:
        """Returns the only task, which has no numbers."""
        return np.zeros(0)

    def scene(self, task: np.ndarray) -> Scene:
        """The family's picture of the one goal."""
        del task
        return self.family.scene(self.goal)

    def initial_observations(self, numbers: np.ndarray) -> np.ndarray:
        """The observation after a reset, which is always the same, [k, O] float64; `numbers` is [k, 0]."""
        if self._initial_observation is None:
            self._initial_observation = super().initial_observations(np.zeros((1, 0)))
        return np.repeat(self._initial_observation, len(numbers), axis=0)

    def reward(self, observation: tf.Tensor, action: tf.Tensor, next_observation: tf.Tensor) -> tf.Tensor:
        """Batch reward, [...]; see the class."""
        family = self.family
        clipped = tf.clip_by_value(action, -1.0, 1.0)
        cost = family.ctrl_cost_coeff * family.ctrl_cost_scale * tf.reduce_sum(tf.square(clipped), axis=-1)
        reward = -tf.norm(self._offset(next_observation), axis=-1) - cost
        if family.unhealthy_penalty:
            reward -= family.unhealthy_penalty * tf.cast(self._unhealthy(next_observation), reward.dtype)
        return reward

    def termination(self, next_observation: tf.Tensor) -> tf.Tensor:
        """Whether the episode ends by arrival or by the state, [...] bool."""
        offset, threshold = self._offset(next_observation), self.family.arrival_threshold
        if self.family.arrives_per_axis:
            arrived = tf.reduce_all(tf.abs(offset) < threshold, axis=-1)
        else:
            arrived = tf.norm(offset, axis=-1) < threshold
        return arrived | self._unhealthy(next_observation)

    def _offset(self, observation: tf.Tensor) -> tf.Tensor:
        """Position minus goal, [..., 2]."""
        return tf.gather(observation, self._columns, axis=-1) - tf.constant(self.goal, observation.dtype)

    def _unhealthy(self, observation: tf.Tensor) -> tf.Tensor:
        if self.family.healthy_heights is None:
            return tf.zeros(tf.shape(observation)[:-1], tf.bool)
        low, high = self.family.healthy_heights
        height = observation[..., 2]
        finite = tf.reduce_all(tf.math.is_finite(observation), axis=-1)
        return ~((height >= low) & (height <= high) & finite)


class _FixedGoalSimulation(Simulation):
    """Copies of the family's system that all work on the goal; tasks have no numbers here."""

    def __init__(self, fixed: FixedGoal, num_copies: int):
        self.num_copies = num_copies
        self._inner = fixed.family.make_simulation(num_copies)
        self._goals = np.broadcast_to(fixed.goal, (num_copies, 2))

    @property
    def drawn(self) -> Simulation:
        return self._inner

    def reset(self, indices: np.ndarray | None = None, numbers: np.ndarray | None = None) -> None:
        self._inner.reset(indices)

    def observe(self) -> np.ndarray:
        return self._inner.observe()

    def step(self, actions: np.ndarray, tasks: np.ndarray) -> StepOutcome:
        return self._inner.step(actions, self._goals)

    def select(self, copies: np.ndarray | None) -> None:
        self._inner.select(copies)

    def use_threads(self, num_threads: int) -> None:
        self._inner.use_threads(num_threads)

    def perturb_state(self, noise: np.ndarray) -> None:
        self._inner.perturb_state(noise)


def _goal(goal: Any) -> np.ndarray:
    if not isinstance(goal, list | tuple) or len(goal) != 2:
        raise UserError(f"FixedGoal.goal must be two numbers, x and y in metres, got {goal!r}")
    return np.array([checks.real(f"FixedGoal.goal[{i}]", number) for i, number in enumerate(goal)])
