"""Random resets, the global stop rule and random-action collection, against plain loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_family import (
    SIZES,
    ToyFamily,
    act,
    arguments,
    assert_layout,
    assert_same,
    flat_steps,
    key,
    make_tasks,
    reference,
    reference_ticks,
)

from metarl.experiment.errors import UserError
from metarl.sampling.noise import NoiseKey
from metarl.sampling.quota import make_quota
from metarl.sampling.random_actions import collect_random, uniform_actions
from metarl.sampling.sampler import Sampler
from metarl.seeding import keyed_generator


def assert_task(batch, task, expected):
    """Row `task` of the batch holds exactly the episodes `expected`."""
    steps, episodes, _ = batch
    assert_layout(steps, task, expected, flat_steps(expected))
    mine = episodes.task == task
    np.testing.assert_array_equal(episodes.length[mine], [len(e) for e in expected])
    np.testing.assert_array_equal(episodes.terminated[mine], [e[-1]["terminated"] for e in expected])
    np.testing.assert_array_equal(episodes.start[mine], np.cumsum([0] + [len(e) for e in expected])[:-1])


@settings(max_examples=25, deadline=None)
@given(**SIZES, threads=st.integers(1, 3), ends_early=st.booleans())
def test_random_resets_equal_plain_loops(seed, M, R, H, threads, ends_early):
    rng = np.random.default_rng(seed)
    tasks, args = make_tasks(rng, M), arguments(rng, M)
    sampler = Sampler(ToyFamily(ends_early, reset_dim=2), act, M, R, H, threads, jit_compile=False)
    batch = sampler.collect(args, tasks, key(M, seed, phase="a"))
    for task in range(M):
        streams = (keyed_generator(seed, 5, phase, task) for phase in ("a", "a/reset"))
        expected = reference(tasks[task], args["shift"][task], next(streams), R, H, ends_early, next(streams))
        assert_task(batch, task, expected)


@settings(max_examples=40, deadline=None)
@given(**SIZES, ends_early=st.booleans(), ratio=st.none() | st.floats(0.05, 3.5))
def test_global_rule_equals_plain_loops(seed, M, R, H, ends_early, ratio):
    """Lock-step until the finished steps of all tasks together suffice; nothing of that tick is dropped."""
    rng = np.random.default_rng(seed)
    tasks, args = make_tasks(rng, M), arguments(rng, M)
    wanted = M * R * H if ratio is None else max(1, round(ratio * M * R * H))
    family = ToyFamily(ends_early, reset_dim=2)
    min_steps = None if ratio is None else wanted
    sampler = Sampler(family, act, M, R, H, 2, jit_compile=False, stop_rule="global", min_steps=min_steps)
    batch = sampler.collect(args, tasks, key(M, seed, phase="a"))

    ticks = []
    for i in range(M):
        streams = [keyed_generator(seed, 5, phase, i) for phase in ("a", "a/reset")]
        ticks.append(reference_ticks(tasks[i], args["shift"][i], streams[0], R, H, ends_early, streams[1]))
    kept = [[] for _ in range(M)]
    length = 0
    while sum(len(episode) for task in kept for episode in task) < wanted:
        length += 1
        for task, tick in zip(kept, ticks, strict=True):
            task.extend(next(tick))
    for task in range(M):
        assert_task(batch, task, kept[task])
    assert sampler.steps_taken == M * R * length
    if ratio is None:
        # With early ends one task's episodes may all be among the longest.
        assert sampler.capacity == (R * (2 * H - 1) if ends_early else R * H)
        assert not ends_early or sampler.num_lanes == 1


@settings(max_examples=40, deadline=None)
@given(**SIZES, threads=st.integers(1, 3), ends_early=st.booleans(), ratio=st.floats(0.05, 3.5))
def test_another_number_of_steps_per_task_equals_plain_loops(seed, M, R, H, threads, ends_early, ratio):
    """Every task by itself until its share is complete; a copy makes episodes for as long as that takes."""
    rng = np.random.default_rng(seed)
    tasks, args = make_tasks(rng, M), arguments(rng, M)
    wanted = max(1, round(ratio * M * R * H))
    family = ToyFamily(ends_early, reset_dim=2)
    sampler = Sampler(family, act, M, R, H, threads, jit_compile=False, stop_rule="per_task", min_steps=wanted)
    batch = sampler.collect(args, tasks, key(M, seed, phase="a"))
    share = -(-wanted // M)
    for i in range(M):
        streams = [keyed_generator(seed, 5, phase, i) for phase in ("a", "a/reset")]
        loop = reference_ticks(tasks[i], args["shift"][i], streams[0], R, H, ends_early, streams[1])
        kept = []
        while sum(map(len, kept)) < share:
            for episode in next(loop):
                # Without early ends whole sweeps are taken, as with the other rules.
                if sum(map(len, kept)) < share or not ends_early:
                    kept.append(episode)
        assert_task(batch, i, kept)


@settings(max_examples=25, deadline=None)
@given(**SIZES, threads=st.integers(1, 2), rollouts=st.integers(1, 4))
def test_truncation_after_another_number_of_steps(seed, M, R, H, threads, rollouts):
    """R copies make so many times H steps, all of which are kept; whole episodes are as without a cut."""
    rng = np.random.default_rng(seed)
    tasks, args = make_tasks(rng, M), arguments(rng, M)
    wanted = M * R * H * rollouts
    family = ToyFamily(True, reset_dim=2)
    sampler = Sampler(family, act, M, R, H, threads, jit_compile=False, stop_rule="truncate", min_steps=wanted)
    steps, episodes, _ = sampler.collect(args, tasks, key(M, seed, phase="a"))
    assert steps.valid.shape == (M, R * H * rollouts)
    assert steps.valid.all()
    for i in range(M):
        streams = [keyed_generator(seed, 5, phase, i) for phase in ("a", "a/reset")]
        loop = reference_ticks(tasks[i], args["shift"][i], streams[0], R, H, True, streams[1])
        # At the last tick what ends by itself and what is cut stand copy by copy.
        whole = [episode for _ in range(H * rollouts - 1) for episode in next(loop)]
        mine = episodes.task == i
        np.testing.assert_array_equal(episodes.length[mine][: len(whole)], [len(episode) for episode in whole])
        assert mine.sum() - len(whole) <= R


def test_rules_agree_without_early_ends():
    M, R, H = 5, 3, 7
    rng = np.random.default_rng(0)
    tasks, args = make_tasks(rng, M), arguments(rng, M)
    batches = [
        Sampler(ToyFamily(False, reset_dim=2), act, M, R, H, threads, stop_rule=rule).collect(args, tasks, key(M))
        for rule, threads in (("per_task", 1), ("global", 1), ("global", 2))
    ]
    assert_same(batches[0], batches[1])
    assert_same(batches[0], batches[2])


def test_resets_do_not_depend_on_the_split():
    M, R, H = 4, 3, 15
    rng = np.random.default_rng(3)
    tasks, args = make_tasks(rng, M), arguments(rng, M)
    whole = Sampler(ToyFamily(reset_dim=2), act, M, R, H, 2).collect(args, tasks, key(M))
    part = Sampler(ToyFamily(reset_dim=2), act, 2, R, H, 1).collect(
        {"shift": args["shift"][2:]}, tasks[2:], NoiseKey(3, 5, "train/round_1", (2, 3))
    )
    assert_same(tuple(field[2:] for field in whole.steps), tuple(part.steps))


def test_bad_rules_are_one_line():
    with pytest.raises(UserError, match="stop_rule must be one of per_task, global, truncate; got 'globl'"):
        make_quota("globl", 1, 1, 1, True)
    with pytest.raises(UserError, match="min_steps must be at least 1"):
        make_quota("global", 1, 1, 1, True, 0)


def test_uniform_actions_are_uniform():
    normals = np.random.default_rng(0).standard_normal((10, 100, 50), dtype=np.float32)
    action = uniform_actions({}, None, normals).numpy()[..., 100:]
    counts, _ = np.histogram(action, bins=20, range=(-1, 1))
    assert np.abs(action).max() <= 1
    # 50,000 draws in 20 bins: 2,500 each, standard deviation 49.
    assert np.abs(counts - 2500).max() < 4.5 * 49


def test_random_collection_takes_whole_sweeps():
    """Section 1.2: 20 copies, horizon 200, 5,000 requested: 8,000 collected."""
    family = ToyFamily(ends_early=False, reset_dim=2)
    steps, episodes, _ = collect_random(family, 5000, 20, 200, seed=1, tasks=np.array([[1.0, 0.0]]))
    assert steps.valid.sum() == 8000
    assert steps.valid.all()
    np.testing.assert_array_equal(episodes.length, np.full(40, 200))
    assert np.unique(steps.action[:, 0, 0]).size == 20
    assert np.abs(steps.action).max() <= 1
    again = collect_random(family, 5000, 20, 200, seed=1, tasks=np.array([[1.0, 0.0]]))
    assert_same(steps, again.steps)


def test_random_collection_is_limited_to_100_copies():
    tasks = np.array([[1.0, 0.3], [2.0, 0.3]])
    steps, episodes, _ = collect_random(ToyFamily(), 250, 1000, 9, seed=2, tasks=tasks)
    assert steps.valid.shape[0] == 100
    # Copies end early here: the tick at which 250 is reached is kept whole.
    assert 250 <= steps.valid.sum() == episodes.length.sum() < 350


@settings(max_examples=25, deadline=None)
@given(**SIZES, threads=st.integers(1, 2))
def test_truncation_keeps_every_step_of_h_ticks(seed, M, R, H, threads):
    """All copies make H steps; what was complete by then is as without truncation, the rest is cut."""
    rng = np.random.default_rng(seed)
    tasks, args = make_tasks(rng, M), arguments(rng, M)
    rounds = {
        rule: Sampler(ToyFamily(True, reset_dim=2), act, M, R, H, threads, jit_compile=False, stop_rule=rule).collect(
            args, tasks, key(M, seed)
        )
        for rule in ("truncate", "global")
    }
    steps, episodes, _ = rounds["truncate"]
    assert steps.valid.shape == (M, R * H)
    assert steps.valid.all()
    for task in range(M):
        mine = episodes.task == task
        assert episodes.length[mine].sum() == R * H
        assert (~episodes.terminated[mine]).sum() <= R  # at most one running episode of every copy
        other = rounds["global"].episodes
        complete = int(episodes.terminated[mine].argmin()) if not episodes.terminated[mine].all() else mine.sum()
        np.testing.assert_array_equal(
            episodes.episode_return[mine][:complete], other.episode_return[other.task == task][:complete]
        )
