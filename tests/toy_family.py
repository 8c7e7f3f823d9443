"""A family of a few numbers and a policy for it, exact in any batch, and the sampler of one task by plain loops."""

import time

import numpy as np
import tensorflow as tf
from hypothesis import strategies as st

from metarl.sampling.noise import NoiseKey
from metarl.simulation.task_family import Simulation, StepOutcome, TaskFamily

A = 2
# Of rounds that plain loops can repeat.
SIZES = {"seed": st.integers(0, 10**6), "M": st.integers(1, 5), "R": st.integers(1, 4), "H": st.integers(1, 9)}


def _hash01(x):
    """Numbers in [0, 1) that depend on x in a way no two neighbouring values share."""
    with np.errstate(invalid="ignore"):
        return np.modf(np.abs(np.sin(x * 12.9898) * 43758.5453))[0]


class ToySimulation(Simulation):
    """State: position (2) and the age of the episode; ends at random, as a function of state and task."""

    def __init__(self, num_copies, family):
        self.num_copies = num_copies
        self.family = family
        self.position = np.zeros((num_copies, 2))
        self.age = np.zeros(num_copies)
        self.stepped = np.zeros(num_copies, int)
        self.selected = np.arange(num_copies)
        self.ticks = 0

    def reset(self, indices=None, numbers=None):
        indices = np.arange(self.num_copies) if indices is None else indices
        self.position[indices] = 0.0 if numbers is None else numbers
        self.age[indices] = 0

    def assign_tasks(self, tasks):
        self.assigned = tasks

    def observe(self):
        return np.concatenate([self.position, self.age[:, None]], axis=1)

    def select(self, copies):
        self.selected = np.arange(self.num_copies) if copies is None else copies

    def step(self, actions, tasks):
        assert actions.shape == (self.num_copies, A)
        assert tasks.shape == (self.num_copies, 2)
        assert np.array_equal(self.assigned, tasks)
        if self.family.explode_at is not None and self.ticks == self.family.explode_at:
            raise ZeroDivisionError("toy")
        time.sleep(self.family.delay)
        self.ticks += 1
        s = self.selected
        self.position[s] += 0.1 * actions[s] + 0.01
        self.age[s] += 1
        self.stepped[s] += 1
        chance = _hash01(self.position[:, 0] + 3 * self.position[:, 1] + tasks[:, 0])
        terminated = (chance < tasks[:, 1]) & self.family.ends_early
        reward = -np.abs(self.position).sum(axis=1) - tasks[:, 0]
        reward = np.where(self.family.poison & (self.age == 2), np.nan, reward)
        info = {"position": self.position.copy(), "distance": chance, "arrived": terminated}
        return StepOutcome(reward, terminated, info)

    def perturb_state(self, noise):
        assert noise.shape == (self.num_copies, 2)
        self.position += noise


class ToyFamily(TaskFamily):
    name = "toy"
    observation_dim, action_dim, task_dim, state_dim = 3, A, 2, 2
    info_keys = ("position", "distance", "arrived")

    def __init__(self, ends_early=True, explode_at=None, poison=False, delay=0.0, reset_dim=0):
        self.ends_early, self.explode_at, self.poison, self.delay = ends_early, explode_at, poison, delay
        self.reset_dim = reset_dim
        self.simulations = []

    def draw_reset(self, rng, count):
        return rng.normal(size=(count, self.reset_dim))

    def make_simulation(self, num_copies):
        self.simulations.append(ToySimulation(num_copies, self))
        return self.simulations[-1]


def act(arguments, observation, standard_normal):
    """Elementwise, and multiplies by powers of two only: the same bits in any batch and however it is fused."""
    mean = 0.25 * observation[..., :A] + arguments["shift"][:, None, :]
    log_std = tf.fill(tf.shape(mean), -1.0)
    return tf.concat([mean, log_std, mean + 0.5 * standard_normal], axis=-1)


def act_numpy(shift, observation, standard_normal):
    mean = np.float32(0.25) * observation[:A] + shift
    return mean, mean + np.float32(0.5) * standard_normal


def reference(task, shift, generator, R, H, ends_early=True, resets=None):
    """One task by plain loops: list of the kept episodes, each a list of steps (dicts)."""
    loop = reference_ticks(task, shift, generator, R, H, ends_early, resets)
    episodes = []
    while sum(map(len, episodes)) < R * H:
        for episode in next(loop):
            if sum(map(len, episodes)) < R * H:
                episodes.append(episode)
    return episodes


def reference_ticks(task, shift, generator, R, H, ends_early=True, resets=None):
    """Yields tick by tick the episodes of one task that are completed at it."""
    copies = []
    for _ in range(R):
        family = ToyFamily(ends_early)
        copies.append((family.make_simulation(1), []))
        copies[-1][0].reset(None, None if resets is None else resets.normal(size=2))
        copies[-1][0].assign_tasks(task[None])
    while True:
        episodes = []
        noise = generator.standard_normal((R, A), dtype=np.float32)
        for r, (simulation, running) in enumerate(copies):
            observation = simulation.observe()[0].astype(np.float32)
            mean, action = act_numpy(shift, observation, noise[r])
            outcome = simulation.step(action[None].astype(np.float64), task[None])
            running.append(
                {
                    "observation": observation,
                    "logits": np.concatenate([mean, [-1.0, -1.0]]).astype(np.float32),
                    "action": action,
                    "reward": outcome.reward[0],
                    "terminated": outcome.terminated[0],
                    "position": outcome.info["position"][0],
                    "distance": outcome.info["distance"][0],
                }
            )
            if outcome.terminated[0] or len(running) == H:
                episodes.append(list(running))
                running.clear()
                simulation.reset(None, None if resets is None else resets.normal(size=2))
        yield episodes


def make_tasks(rng, M):
    return np.stack([rng.uniform(0, 5, M), rng.choice([0.0, 0.02, 0.2, 0.6, 1.0], M)], axis=1)


def key(M, seed=3, iteration=5, phase="train/round_1"):
    return NoiseKey(seed, iteration, phase, list(range(M)))


def arguments(rng, M):
    return {"shift": rng.normal(size=(M, A)).astype(np.float32)}


def flat_steps(episodes):
    """The steps of `reference`'s episodes, one after the other, with their time index."""
    return [dict(step, time=t) for episode in episodes for t, step in enumerate(episode)]


def assert_layout(steps, task, episodes, flat):
    """Row `task` holds exactly these steps, and its episodes end where these end."""
    count = len(flat)
    np.testing.assert_array_equal(steps.valid[task], np.arange(steps.valid.shape[1]) < count)
    np.testing.assert_array_equal(np.flatnonzero(steps.last[task]) + 1, np.cumsum([len(e) for e in episodes]))
    for name in ("observation", "logits", "action", "time") if count else ():
        np.testing.assert_array_equal(getattr(steps, name)[task, :count], np.stack([step[name] for step in flat]))


def assert_same(a, b):
    tf.nest.map_structure(np.testing.assert_array_equal, a, b)
