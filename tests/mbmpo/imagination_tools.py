"""A family, an ensemble and a policy whose imagined rollouts can be foretold by hand."""

import numpy as np
import tensorflow as tf

from metarl.simulation.imaginable import ImaginableFamily


class CountingFamily(ImaginableFamily):
    """Observation (count, sum); an episode may end when the count reaches a limit; the reward is 1 + the action."""

    name = "counting"
    observation_dim, action_dim, task_dim, state_dim, reset_dim = 2, 1, 0, 0, 1
    info_keys = ()

    def __init__(self, end=None, spread=1):
        self.can_terminate = self.ends_early = end is not None
        self._end, self._spread = end, spread

    def make_simulation(self, num_copies):
        raise AssertionError("imagination must not simulate")

    def draw_reset(self, rng, count):
        return rng.integers(self._spread, size=(count, 1)).astype(np.float64)

    def initial_observations(self, numbers):
        return np.concatenate([numbers, np.zeros_like(numbers)], axis=1)

    def reward(self, observation, action, next_observation):
        return 1.0 + action[..., 0] + 0.0 * next_observation[..., 0]

    def termination(self, next_observation):
        return next_observation[..., 0] >= self._end


class CountingEnsemble:
    """Model e adds (1, e + 1) to the observation and ignores the action."""

    def __init__(self, num_models):
        self.num_models = num_models

    def selected(self, effective, models):
        return tf.gather(effective, models)

    def predict_blocks(self, effective, observation, action):
        assert observation.shape[0] == action.shape[0] == effective.shape[0]
        added = tf.stack([tf.ones_like(effective), effective], axis=-1)
        return observation + added[:, tf.newaxis]

    def predict_random(self, effective, observation, action, member):
        added = tf.gather(effective, member)
        return observation + tf.stack([tf.ones_like(added), added], axis=-1)

    def effective(self):
        return tf.range(1.0, self.num_models + 1.0)


class LinearPolicy:
    """mean = shift of the task, standard deviation `std`."""

    def __init__(self, std=1.0):
        self._std = std

    def act(self, weights, observation, standard_normal):
        mean = weights["shift"][:, tf.newaxis, tf.newaxis] + tf.zeros_like(standard_normal)
        log_std = tf.math.log(self._std) + tf.zeros_like(mean)
        return tf.concat([mean, log_std, mean + self._std * standard_normal], axis=-1)


def naive_rollouts(starts, members, end, horizon, quota, reset):
    """The executor of section 5.2 for the counting family, one row and one step at a time.

    Args:
        starts: first observation of each row.
        members: model of each row.
        end: count at which an episode terminates, or None.
        horizon: H.
        quota: finished steps to reach.
        reset: row -> (observation, time index) of a row that finished.

    Returns:
        Per row a list of finished episodes, each a list of observations.
    """
    current = [np.array(start, float) for start in starts]
    begin, running = [0] * len(starts), [[] for _ in starts]
    episodes, finished = [[] for _ in starts], 0
    while finished < quota:
        for row, member in enumerate(members):
            running[row].append(current[row])
            current[row] = current[row] + [1.0, member + 1.0]
            ended = begin[row] + len(running[row]) >= horizon or (end is not None and current[row][0] >= end)
            if ended:
                finished += len(running[row])
                episodes[row].append(running[row])
                running[row] = []
                current[row], begin[row] = reset(row)
    return episodes
