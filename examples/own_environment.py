"""A task family of one's own: a boat that has to reach the harbour, whatever the current. A task is the current."""

import gin
import numpy as np
import tensorflow as tf

from metarl.simulation.imaginable import ImaginableFamily
from metarl.simulation.task_family import Simulation, StepOutcome


@gin.configurable(module="examples")
class Boat(ImaginableFamily):
    """Observation: position; an action moves by 0.1 per axis; reward: minus the distance to the harbour at (0, 0)."""

    name, observation_dim, action_dim, task_dim, state_dim = "boat", 2, 2, 2, 2
    ends_early, can_terminate, info_keys, reset_dim = True, True, ("position",), 2

    def __init__(self, *, strongest_current: float = 0.05):
        self.strongest_current = strongest_current

    def make_simulation(self, num_copies):
        return Boats(self, num_copies)

    def draw_task(self, rng):
        return rng.uniform(-self.strongest_current, self.strongest_current, 2)

    def draw_reset(self, rng, count):
        return rng.uniform(-1.0, 1.0, (count, 2))  # where the boats start

    # What a learned model needs to know, and MB-MPO alone: the reward and the end are functions of observations.
    def reward(self, observation, action, next_observation):
        return -tf.norm(next_observation, axis=-1)

    def termination(self, next_observation):
        return tf.norm(next_observation, axis=-1) < 0.1


class Boats(Simulation):
    """`n` boats, stepped together; positions named `state` are what `launchers.render` draws."""

    def __init__(self, family, num_copies):
        self.num_copies, self.state = num_copies, np.ones((num_copies, 2))

    def reset(self, indices=None, numbers=None):
        self.state[slice(None) if indices is None else indices] = 1.0 if numbers is None else numbers

    def observe(self):
        return self.state.copy()

    def step(self, actions, tasks):
        self.state += 0.1 * np.clip(actions, -1.0, 1.0) + tasks
        distance = np.linalg.norm(self.state, axis=1)
        return StepOutcome(-distance, distance < 0.1, {"position": self.state.copy()})

    def perturb_state(self, noise):
        self.state += noise
