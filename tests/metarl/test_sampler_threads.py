"""How a round's threads are divided among its lanes."""

import threading

import numpy as np
import pytest
from toy_family import ToyFamily, act, arguments, assert_same, key, make_tasks

from metarl.sampling import sampler as sampler_module
from metarl.sampling.sampler import Sampler
from metarl.sampling.threads import ThreadShares


class Threaded(ToyFamily):
    """Notes the copies and threads of every request."""

    threaded = True

    def __init__(self, **options):
        super().__init__(**options)
        self.used = []

    def make_simulation(self, num_copies):
        simulation = super().make_simulation(num_copies)
        simulation.use_threads = lambda num_threads: self.used.append((num_copies, num_threads))
        return simulation


def test_threads_of_done_lanes_go_to_the_others():
    threads, each = ThreadShares(7, 3), []
    for _ in range(3):
        each.append(threads.each)
        threads.lane_is_done()
    assert each == [2, 3, 7]
    assert ThreadShares(1, 2).each == 1


def test_few_copies_of_a_threaded_family_are_one_lane_with_all_threads():
    rng = np.random.default_rng(9)
    for M, R, lanes, used in ((4, 1, 1, [(4, 4)]), (5, 1, 3, []), (2, 2, 1, [(4, 4)]), (2, 3, 2, [(3, 2), (3, 2)])):
        tasks, args = make_tasks(rng, M), arguments(rng, M)
        family = Threaded()
        sampler = Sampler(family, act, M, R, 5, 4)
        assert sampler.num_lanes == lanes
        batch = sampler.collect(args, tasks, key(M))
        assert family.used[: len(used)] == used
        assert_same(Sampler(ToyFamily(), act, M, R, 5, 4).collect(args, tasks, key(M)), batch)


def test_a_lane_gets_the_threads_of_one_that_is_done_and_gives_them_back(monkeypatch):
    done = threading.Event()

    class Watched(ThreadShares):
        def lane_is_done(self):
            super().lane_is_done()
            done.set()

    monkeypatch.setattr(sampler_module, "ThreadShares", Watched)
    M, R, H = 3, 2, 10
    family = Threaded()
    sampler = Sampler(family, act, M, R, H, 2)
    first = family.simulations[0]
    step = first.step

    def step_when_the_other_is_done(actions, tasks):
        assert done.wait(60)
        return step(actions, tasks)

    first.step = step_when_the_other_is_done
    args, tasks = arguments(np.random.default_rng(0), M), make_tasks(np.random.default_rng(1), M)
    for _ in range(2):
        done.clear()
        batch = sampler.collect(args, tasks, key(M))
    assert family.used == [(4, 2), (4, 1), (4, 2)]
    assert_same(Sampler(ToyFamily(), act, M, R, H, 1).collect(args, tasks, key(M)), batch)


def test_a_lane_that_fails_leaves_its_threads(monkeypatch):
    shares = []
    monkeypatch.setattr(sampler_module, "ThreadShares", lambda *sizes: shares.append(ThreadShares(*sizes)) or shares[0])
    with pytest.raises(ZeroDivisionError):
        Sampler(Threaded(explode_at=0), act, 2, 4, 5, 2).collect(
            arguments(np.random.default_rng(0), 2), make_tasks(np.random.default_rng(1), 2), key(2)
        )
    assert shares[0].each == 2
