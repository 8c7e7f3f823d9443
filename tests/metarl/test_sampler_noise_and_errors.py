"""Transition noise, numbers that are not finite, errors, interrupts and progress of a sampling round."""

import threading
import time

import numpy as np
import pytest
import tensorflow as tf
from toy_family import A, ToyFamily, act, arguments, assert_same, key, make_tasks

from metarl.experiment.errors import UserError
from metarl.sampling.noise import TransitionNoise
from metarl.sampling.sampler import Sampler
from metarl.seeding import keyed_generator


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
