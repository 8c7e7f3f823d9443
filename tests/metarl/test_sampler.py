"""Rounds of the sampler against plain loops; its lanes, threads and compiled policy."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_family import (
    SIZES,
    A,
    ToyFamily,
    act,
    arguments,
    assert_layout,
    assert_same,
    flat_steps,
    key,
    make_tasks,
    reference,
)

from metarl.compiled import flat_call
from metarl.sampling.noise import NoiseKey
from metarl.sampling.sampler import Sampler
from metarl.seeding import keyed_generator


@settings(max_examples=30, deadline=None)
@given(**SIZES, threads=st.integers(1, 3), ends_early=st.booleans())
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
            flat = flat_steps(expected)
            count = len(flat)
            assert R * H <= count <= S
            assert_layout(steps, task, expected, flat)
            for name in ("position", "distance"):
                value = np.stack([step[name] for step in flat])
                np.testing.assert_array_equal(info[name][task, :count], value)
            np.testing.assert_array_equal(steps.reward[task, :count], np.float32([s["reward"] for s in flat]))
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
