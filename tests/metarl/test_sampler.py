import threading
import time

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from metarl.compiled import flat_call
from metarl.experiment.errors import UserError
from metarl.sampling.noise import NoiseKey, TransitionNoise
from metarl.sampling.sampler import Sampler
from metarl.seeding import keyed_generator
from metarl.simulation.task_family import Simulation, StepOutcome, TaskFamily

A = 2


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


def assert_same(a, b):
    tf.nest.map_structure(np.testing.assert_array_equal, a, b)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    M=st.integers(1, 5),
    R=st.integers(1, 4),
    H=st.integers(1, 9),
    threads=st.integers(1, 3),
    ends_early=st.booleans(),
)
def test_stop_rule_equals_plain_loops(seed, M, R, H, threads, ends_early):
    rng = np.random.default_rng(seed)
    family = ToyFamily(ends_early)
    sampler = Sampler(family, act, M, R, H, threads, jit_compile=False)
    for phase in ("a", "b"):
        tasks, args = make_tasks(rng, M), arguments(rng, M)
        steps, episodes, info = sampler.collect(args, tasks, key(M, seed, phase=phase))
        S = R * H + (H - 1 if ends_early else 0)
        assert steps.valid.shape == (M, S)
        index = 0
        for task in range(M):
            generator = keyed_generator(seed, 5, phase, task)
            expected = reference(tasks[task], args["shift"][task], generator, R, H, ends_early)
            flat = [dict(step, time=t) for episode in expected for t, step in enumerate(episode)]
            count = len(flat)
            assert R * H <= count <= S
            np.testing.assert_array_equal(steps.valid[task], np.arange(S) < count)
            for name in ("observation", "logits", "action", "time"):
                value = np.stack([step[name] for step in flat])
                np.testing.assert_array_equal(getattr(steps, name)[task, :count], value)
            for name in ("position", "distance"):
                value = np.stack([step[name] for step in flat])
                np.testing.assert_array_equal(info[name][task, :count], value)
            np.testing.assert_array_equal(steps.reward[task, :count], np.float32([s["reward"] for s in flat]))
            np.testing.assert_array_equal(np.flatnonzero(steps.last[task]) + 1, np.cumsum([len(e) for e in expected]))
            for episode, begin in zip(expected, np.cumsum([0] + [len(e) for e in expected]), strict=False):
                assert episodes.task[index] == task
                assert episodes.start[index] == begin
                assert episodes.length[index] == len(episode)
                assert episodes.terminated[index] == episode[-1]["terminated"]
                np.testing.assert_allclose(episodes.episode_return[index], sum(s["reward"] for s in episode), rtol=1e-5)
                distances = info["distance"][task, begin : begin + len(episode)]
                np.testing.assert_allclose(episodes.sums["distance"][index], distances.sum())
                assert episodes.final["distance"][index] == distances[-1]
                index += 1
        assert index == episodes.task.size
        assert sorted(episodes.sums) == ["arrived", "distance"]


@pytest.mark.parametrize("M", [1, 4, 5, 7])
def test_lanes_do_not_change_a_bit(M):
    rng = np.random.default_rng(M)
    tasks, args = make_tasks(rng, M), arguments(rng, M)
    batches = []
    for threads in (1, 2, 3):
        sampler = Sampler(ToyFamily(), act, M, 3, 70, threads)
        assert sampler.num_lanes <= min(threads, M)
        batches.append(sampler.collect(args, tasks, key(M)))
    assert_same(batches[0], batches[1])
    assert_same(batches[0], batches[2])


def test_default_number_of_threads_is_positive():
    sampler = Sampler(ToyFamily(), act, 2, 1, 3)
    assert sampler.num_lanes >= 1


def test_without_early_ends_exactly_r_episodes_of_h_steps():
    M, R, H = 3, 4, 10
    rng = np.random.default_rng(0)
    sampler = Sampler(ToyFamily(ends_early=False), act, M, R, H, 2)
    steps, episodes, _ = sampler.collect(arguments(rng, M), make_tasks(rng, M), key(M))
    assert steps.reward.shape == (M, R * H)
    assert steps.valid.all()
    np.testing.assert_array_equal(episodes.length, np.full(M * R, H))
    assert not episodes.terminated.any()
    np.testing.assert_array_equal(steps.time, np.tile(np.arange(H), (M, R)))


def test_padding_is_zero_and_masked():
    M, R, H = 5, 3, 20
    rng = np.random.default_rng(1)
    sampler = Sampler(ToyFamily(), act, M, R, H, 2)
    steps, _, info = sampler.collect(arguments(rng, M), make_tasks(rng, M), key(M))
    assert not steps.valid.all()
    for array in [*steps, *info.values()]:
        assert not np.any(array[~steps.valid])
    assert steps.observation.dtype == steps.reward.dtype == steps.logits.dtype == steps.action.dtype == np.float32
    assert steps.time.dtype == np.int32


def test_rounds_do_not_depend_on_what_came_before():
    M, R, H = 3, 2, 12
    rng = np.random.default_rng(2)
    tasks, args = make_tasks(rng, M), arguments(rng, M)
    used = Sampler(ToyFamily(), act, M, R, H, 2)
    used.collect(arguments(rng, M), make_tasks(rng, M), key(M, phase="other"))
    fresh = Sampler(ToyFamily(), act, M, R, H, 2)
    assert_same(used.collect(args, tasks, key(M)), fresh.collect(args, tasks, key(M)))
    different = fresh.collect(args, tasks, key(M, iteration=6))
    assert np.any(different.steps.action[:, 0] != used.collect(args, tasks, key(M)).steps.action[:, 0])


def test_permuting_and_splitting_the_tasks_changes_nothing():
    M, R, H = 4, 3, 15
    rng = np.random.default_rng(3)
    tasks, args = make_tasks(rng, M), arguments(rng, M)
    whole = Sampler(ToyFamily(), act, M, R, H, 2).collect(args, tasks, key(M))
    order = np.array([2, 0, 3, 1])
    permuted = Sampler(ToyFamily(), act, M, R, H, 2).collect(
        {"shift": args["shift"][order]}, tasks[order], NoiseKey(3, 5, "train/round_1", order)
    )
    assert_same(tuple(field[order] for field in whole.steps), tuple(permuted.steps))
    part = Sampler(ToyFamily(), act, 2, R, H, 2).collect(
        {"shift": args["shift"][2:]}, tasks[2:], NoiseKey(3, 5, "train/round_1", (2, 3))
    )
    assert_same(tuple(field[2:] for field in whole.steps), tuple(part.steps))


def test_the_policy_is_traced_once():
    traces = []

    @tf.function(jit_compile=True)
    def counted(*arguments):
        traces.append(1)
        return act(*arguments)

    M = 5
    rng = np.random.default_rng(4)
    sampler = Sampler(ToyFamily(), counted, M, 2, 8, 2)
    counts = set()
    for iteration in range(4):
        batch = sampler.collect(arguments(rng, M), make_tasks(rng, M), key(M, iteration=iteration))
        counts.add(int(batch.steps.valid.sum()))
    assert len(counts) > 1
    assert len(traces) == 1


def test_the_short_way_into_a_function_equals_the_public_one():
    offset = tf.Variable(2.0)
    concrete = tf.function(lambda x, y: x + 2 * y + offset).get_concrete_function(
        tf.TensorSpec((2,), tf.float32), tf.TensorSpec((2,), tf.float32)
    )
    tensors = [tf.constant([1.0, 2.0]), tf.constant([3.0, 5.0])]
    for function in (concrete, lambda *arguments: concrete(*arguments)):
        np.testing.assert_array_equal(flat_call(function)(tensors), [9.0, 14.0])


@pytest.mark.parametrize(("R", "in_numpy"), [(8, True), (9, False)])
def test_small_rounds_call_the_numpy_policy(R, in_numpy):
    calls = []

    def host_act(arguments):
        def policy(observation, standard_normal):
            calls.append(observation.shape)
            mean, action = act_numpy(shift, observation, standard_normal)
            return np.concatenate([mean, np.full_like(mean, -1.0), action], axis=-1)

        assert all(isinstance(leaf, np.ndarray) for leaf in arguments.values())
        shift = (arguments["shift"] * arguments["gain"])[:, None]
        return policy

    def act_numpy(shift, observation, standard_normal):
        mean = np.float32(0.25) * observation[..., :A] + shift
        return mean, mean + np.float32(0.5) * standard_normal

    def gained(arguments, observation, standard_normal):
        return act({"shift": arguments["shift"] * arguments["gain"]}, observation, standard_normal)

    M, H = 5, 6
    rng = np.random.default_rng(8)
    tasks, args, gain = make_tasks(rng, M), arguments(rng, M), {"gain": tf.constant(2.0)}
    expected = Sampler(ToyFamily(), gained, M, R, H, 2).collect(args, tasks, key(M), shared_arguments=gain)
    sampler = Sampler(ToyFamily(), gained, M, R, H, 2, host_act=host_act)
    for _ in range(2):
        assert_same(expected, sampler.collect(args, tasks, key(M), shared_arguments=gain))
    assert set(calls) == ({(3, R, ToyFamily.observation_dim)} if in_numpy else set())
    with pytest.raises(ValueError, match="changed"):
        sampler.collect({"shift": np.zeros((M, 1), np.float32)}, tasks, key(M), shared_arguments=gain)


def test_finished_and_padding_tasks_are_not_stepped():
    M, R, H = 3, 2, 10
    family = ToyFamily()
    sampler = Sampler(family, act, M, R, H, 2)
    # Task 0 ends at once every time, task 1 never early: 10 and 10 ticks; task 2 sits beside a padding slot.
    tasks = np.array([[0.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
    sampler.collect(arguments(np.random.default_rng(0), M), tasks, key(M))
    np.testing.assert_array_equal(family.simulations[1].stepped, [H, H, 0, 0])


def test_few_copies_of_a_threaded_family_are_one_lane_with_all_threads():
    used = []

    class Threaded(ToyFamily):
        threaded = True

        def make_simulation(self, num_copies):
            simulation = super().make_simulation(num_copies)
            simulation.use_threads = lambda num_threads: used.append((num_copies, num_threads))
            return simulation

    rng = np.random.default_rng(9)
    for M, R, lanes, threads in ((4, 16, 1, [(64, 3)]), (5, 13, 3, []), (2, 40, 2, [])):
        tasks, args = make_tasks(rng, M), arguments(rng, M)
        used.clear()
        sampler = Sampler(Threaded(), act, M, R, 5, 3)
        assert (sampler.num_lanes, used) == (lanes, threads)
        assert_same(
            Sampler(ToyFamily(), act, M, R, 5, 3).collect(args, tasks, key(M)), sampler.collect(args, tasks, key(M))
        )


def test_shared_arguments_reach_the_policy_unsplit():
    def shifted(arguments, observation, standard_normal):
        assert arguments["gain"].shape == ()
        return act({"shift": arguments["shift"] * arguments["gain"]}, observation, standard_normal)

    M, R, H = 5, 2, 6
    rng = np.random.default_rng(5)
    tasks, args = make_tasks(rng, M), arguments(rng, M)
    expected = Sampler(ToyFamily(), act, M, R, H, 2).collect({"shift": 2 * args["shift"]}, tasks, key(M))
    sampler = Sampler(ToyFamily(), shifted, M, R, H, 2)
    assert_same(expected, sampler.collect(args, tasks, key(M), shared_arguments={"gain": np.float32(2)}))


def test_arguments_of_another_shape_are_refused():
    M = 4
    rng = np.random.default_rng(6)
    sampler = Sampler(ToyFamily(), act, M, 2, 5, 2)
    with pytest.raises(ValueError, match="leading axis of 4"):
        sampler.collect(arguments(rng, 3), make_tasks(rng, M), key(M))
    sampler.collect(arguments(rng, M), make_tasks(rng, M), key(M))
    with pytest.raises(ValueError, match="changed"):
        sampler.collect({"shift": np.zeros((M, 1), np.float32)}, make_tasks(rng, M), key(M))
    with pytest.raises(ValueError, match="4 tasks"):
        sampler.collect(arguments(rng, M), make_tasks(rng, 3), key(M))


def test_a_policy_of_another_shape_is_refused():
    sampler = Sampler(ToyFamily(), lambda a, observation, z: z, 2, 2, 5, 1)
    rng = np.random.default_rng(6)
    with pytest.raises(ValueError, match="act must return"):
        sampler.collect(arguments(rng, 2), make_tasks(rng, 2), key(2))


def test_observation_noise_is_seen_but_does_not_touch_the_state():
    M, R, H = 3, 2, 6
    rng = np.random.default_rng(7)
    tasks = make_tasks(rng, M)

    def blind(arguments, observation, standard_normal):
        return act(arguments, tf.zeros_like(observation), standard_normal)

    args = arguments(rng, M)
    clean = Sampler(ToyFamily(), blind, M, R, H, 2).collect(args, tasks, key(M))
    noisy = [
        Sampler(ToyFamily(), blind, M, R, H, threads).collect(args, tasks, key(M), TransitionNoise(0.5))
        for threads in (1, 2)
    ]
    assert_same(noisy[0], noisy[1])
    noisy = noisy[0]
    assert_same(clean.info, noisy.info)
    assert_same(clean.episodes, noisy.episodes)
    difference = noisy.steps.observation - clean.steps.observation
    assert not difference[clean.steps.time == 0].any()
    later = clean.steps.valid & (clean.steps.time > 0)
    assert (difference[later] != 0).all()
    # The same standard normals whatever sigma is, and independent of the policy's.
    louder = Sampler(ToyFamily(), blind, M, R, H, 1).collect(args, tasks, key(M), TransitionNoise(1.0))
    np.testing.assert_allclose(2 * difference, louder.steps.observation - clean.steps.observation, rtol=1e-4, atol=1e-5)
    assert_same(
        clean, Sampler(ToyFamily(), blind, M, R, H, 2).collect(args, tasks, key(M), TransitionNoise(0.0, "state"))
    )


def test_observation_noise_has_its_sigma():
    M, R, H = 2, 30, 60
    tasks = np.zeros((M, 2))
    args = {"shift": np.zeros((M, A), np.float32)}

    def blind(arguments, observation, standard_normal):
        return act(arguments, tf.zeros_like(observation), standard_normal)

    sampler = Sampler(ToyFamily(ends_early=False), blind, M, R, H, 2)
    clean = sampler.collect(args, tasks, key(M))
    noisy = sampler.collect(args, tasks, key(M), TransitionNoise(0.3))
    difference = (noisy.steps.observation - clean.steps.observation)[clean.steps.time > 0]
    assert abs(difference.mean()) < 0.01
    assert abs(difference.std() - 0.3) < 0.01


def test_state_noise_moves_the_state_after_the_reward():
    M, R, H = 2, 2, 4
    tasks = np.array([[0.5, 0.0], [1.5, 0.0]])
    args = {"shift": np.zeros((M, A), np.float32)}
    clean = Sampler(ToyFamily(), act, M, R, H, 2).collect(args, tasks, key(M))
    noisy = [
        Sampler(ToyFamily(), act, M, R, H, threads).collect(args, tasks, key(M), TransitionNoise(0.5, "state"))
        for threads in (1, 2)
    ]
    assert_same(noisy[0], noisy[1])
    noisy = noisy[0]
    first = clean.steps.valid & (clean.steps.time == 0)
    np.testing.assert_array_equal(clean.steps.reward[first], noisy.steps.reward[first])
    np.testing.assert_array_equal(clean.steps.observation[first], noisy.steps.observation[first])
    generator = keyed_generator(3, 5, "train/round_1/transition", 1)
    expected = 0.5 * generator.standard_normal((R, 2), dtype=np.float32)
    for copy in range(R):
        moved = noisy.steps.observation[1, copy * H + 1, :2] - clean.steps.observation[1, copy * H + 1, :2]
        np.testing.assert_allclose(moved, expected[copy], atol=1e-5)


@pytest.mark.parametrize(("sigma", "kind"), [(-1.0, "state"), (float("nan"), "state"), (0.1, "stat")])
def test_wrong_transition_noise_is_a_users_mistake(sigma, kind):
    with pytest.raises(UserError):
        TransitionNoise(sigma, kind)


def test_non_finite_rewards_pass_through():
    M, R, H = 2, 2, 5
    sampler = Sampler(ToyFamily(ends_early=False, poison=True), act, M, R, H, 2)
    steps, episodes, _ = sampler.collect({"shift": np.zeros((M, A), np.float32)}, np.zeros((M, 2)), key(M))
    assert np.isnan(steps.reward[steps.time == 1]).all()
    assert np.isfinite(steps.reward[steps.time != 1]).all()
    assert np.isnan(episodes.episode_return).all()


def test_non_finite_observations_do_not_loop_for_ever():
    M, R, H = 2, 2, 5
    sampler = Sampler(ToyFamily(), act, M, R, H, 2)
    steps, _, _ = sampler.collect({"shift": np.full((M, A), np.inf, np.float32)}, np.zeros((M, 2)), key(M))
    assert not np.isfinite(steps.observation[steps.time > 0]).all()


def test_an_error_in_a_lane_stops_all_and_keeps_its_traceback():
    family = ToyFamily(delay=0.01)
    sampler = Sampler(family, act, 4, 2, 1000, 2)
    family.simulations[1].family = ToyFamily(explode_at=3)
    rng = np.random.default_rng(9)
    begin = time.perf_counter()
    with pytest.raises(ZeroDivisionError) as caught:
        sampler.collect(arguments(rng, 4), np.zeros((4, 2)), key(4))
    assert time.perf_counter() - begin < 5
    assert caught.traceback[-1].name == "step"
    family.simulations[1].family = family.simulations[0].family = ToyFamily()
    assert sampler.collect(arguments(rng, 4), np.ones((4, 2)), key(4)).steps.valid.any()


def test_an_interrupt_ends_the_round_promptly():
    sampler = Sampler(ToyFamily(delay=0.01), act, 4, 2, 1000, 2)

    def interrupt(taken):
        del taken
        raise KeyboardInterrupt

    begin = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        sampler.collect(arguments(np.random.default_rng(0), 4), np.zeros((4, 2)), key(4), progress=interrupt)
    assert time.perf_counter() - begin < 5


def test_progress_counts_every_step_in_the_calling_thread():
    M, R, H = 3, 2, 30
    taken, threads = [], set()
    sampler = Sampler(ToyFamily(ends_early=False, delay=0.01), act, M, R, H, 2)

    def progress(steps):
        taken.append(steps)
        threads.add(threading.current_thread())

    sampler.collect(
        arguments(np.random.default_rng(0), M), make_tasks(np.random.default_rng(0), M), key(M), None, progress
    )
    assert sum(taken) == M * R * H
    assert len(taken) > 1
    assert threads == {threading.current_thread()}


def test_a_family_that_breaks_its_promise_is_named():
    family = ToyFamily(ends_early=True)
    sampler = Sampler(family, act, 1, 2, 5, 1)
    family.ends_early = False
    family.simulations[0].family = ToyFamily(ends_early=True)
    with pytest.raises(RuntimeError, match="toy"):
        sampler.collect({"shift": np.zeros((1, A), np.float32)}, np.array([[0.3, 1.0]]), key(1))
