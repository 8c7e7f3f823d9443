"""Pools of shards: the journal, processes that are lost and replaced, and what must not change."""

import os
import signal
import threading

import numpy as np
import pytest
import tensorflow as tf
from toy_pool import PoolShard

from metarl.experiment.errors import UserError, WorkerError
from metarl.experiment.learner import NonFiniteError
from metarl.scaling import messages, supervised_pool
from metarl.scaling.journal import Journal
from metarl.scaling.pool import LocalPool, summed
from metarl.scaling.process_pool import ProcessPool
from metarl.scaling.shard import TaskBatch
from metarl.scaling.sharded_learner import by_shard, split_sizes

TASKS = TaskBatch(np.zeros((3, 0)), np.arange(3))
CONFIG = """
import toy_pool
metarl.Experiment.learner = @ToyPoolLearner()
metarl.Experiment.iterations = 1
ToyPoolLearner.marker = {marker!r}
"""


@pytest.fixture(scope="module")
def marker(tmp_path_factory):
    return tmp_path_factory.mktemp("pool") / "mishap"


@pytest.fixture(scope="module")
def shared(marker):
    pool = ProcessPool(CONFIG.format(marker=str(marker)), (2, 1), timeout=4.0)
    yield pool
    pool.close()


@pytest.fixture
def pool(shared, marker):
    """Two workers; the mishap has yet to come."""
    marker.unlink(missing_ok=True)
    return shared


def local():
    return LocalPool([PoolShard(2), PoolShard(1)])


def collected(pool, **options):
    pool.call("use", scale=2.0)
    return pool.collect(TASKS, parameters=1.5, seed=1, iteration=4, **options)


def evaluated(pool, **options):
    return pool.evaluate(key=None, parameters=3.0, what="toy", **options)


def exists(pid):
    """Whether there is such a process, be it a zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def assert_same(found, expected):
    for a, b in zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True):
        np.testing.assert_array_equal(a, b)


def test_sizes_are_as_equal_as_possible():
    assert split_sizes(20, 3) == (7, 7, 6)
    assert local().ranges() == [(0, 2), (2, 3)]
    assert local().num_tasks == 3


def test_sums_go_over_shards_and_over_nothing_where_there_is_nothing():
    assert summed([None, None]) is None
    parts = [{"a": np.float32([1, 2]), "b": (np.float32(3),)}, {"a": np.float32([10, 20]), "b": (np.float32(30),)}]
    total = summed(parts)
    np.testing.assert_array_equal(total["a"], [11, 22])
    np.testing.assert_array_equal(total["b"][0], 33)
    assert summed(parts[:1]) is parts[0]


def test_evidence_of_several_shards_is_kept_apart():
    assert list(by_shard([{"x": np.zeros(1)}])) == ["x"]
    assert list(by_shard([{"x": np.zeros(1)}] * 2)) == ["shard_0/x", "shard_1/x"]


def test_tensors_travel_as_they_are():
    nest = {"a": tf.constant([1, 2]), "b": (tf.constant(1.5, tf.float64), None, np.arange(3)), "c": "text"}
    back = messages.loads(messages.dumps(nest))
    assert tf.is_tensor(back["a"])
    assert back["a"].dtype == tf.int32
    assert back["b"][0].dtype == tf.float64
    assert back["c"] == "text"
    assert_same([back["a"], back["b"]], [nest["a"], nest["b"]])


def test_a_journal_repeats_what_the_present_state_comes_from():
    journal = Journal(("use", "collect"))

    def call(method, call, **arguments):
        journal.begin(method, arguments)
        journal.done(method, arguments, call)

    call("use", 1)
    call("collect", 2)
    call("evaluate", 3)
    call("collect", 4, keep=False)
    assert journal.calls() == [1, 2]
    call("collect", 5, keep=True)
    assert journal.calls() == [1, 5]
    journal.begin("collect", {})  # going on: it is repeated by the pool itself
    assert journal.calls() == [1]
    call("collect", 6)
    call("use", 7)
    assert journal.calls() == [7]


def test_processes_answer_as_shards_of_this_process(pool):
    reports = []
    here = local()
    assert_same(collected(pool, report=reports.append), collected(here))
    assert reports == ["collecting 0"]
    assert_same(evaluated(pool), evaluated(here))
    processes = pool.call("process")
    assert len({*processes, os.getpid()}) == 3
    assert pool.traffic.sent > 0
    assert pool.traffic.received > 0


@pytest.mark.parametrize(
    ("kind", "where"), [("kill", "collect"), ("hang", "collect"), ("exit", "evaluate"), ("raise", "evaluate")]
)
def test_a_lost_worker_changes_nothing(pool, kind, where, caplog):
    here, lost = local(), pool.traffic.replaced
    assert_same(collected(pool, **({"mishap": kind} if where == "collect" else {})), collected(here))
    assert_same(evaluated(pool, **({"mishap": kind} if where == "evaluate" else {})), evaluated(here))
    assert pool.traffic.replaced == lost + 1
    assert "worker 1 (tasks 2-2)" in caplog.text
    assert ("toy broke" in caplog.text and "Traceback" in caplog.text) == (kind == "raise")
    assert {"kill": "SIGKILL", "exit": "exit code 7", "hang": "did not answer for 4 seconds", "raise": "toy broke"}[
        kind
    ] in caplog.text


def test_a_worker_killed_between_two_calls_is_replaced(pool):
    collected(pool)
    before = pool.processes[1].pid
    os.kill(before, signal.SIGKILL)
    here = local()
    collected(here)
    assert_same(evaluated(pool), evaluated(here))
    assert not exists(before)  # nor is it a zombie


def test_a_crash_loop_ends_with_one_line(pool, monkeypatch):
    monkeypatch.setattr(supervised_pool, "ATTEMPTS", 2)
    with pytest.raises(
        WorkerError, match=r"worker 1 \(tasks 2-2\) was lost 2 times in 'collect'.*exit code 7"
    ) as error:
        collected(pool, mishap="always exit")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("kind", "error"), [("user", UserError), ("nan", NonFiniteError)])
def test_an_error_that_would_come_again_is_the_learner_s(pool, kind, error):
    collected(pool)
    lost = pool.traffic.replaced
    with pytest.raises(error, match="a toy is"):
        collected(pool, mishap=f"always {kind}")
    assert_same(collected(pool), collected(local()))  # late answers are passed over
    assert pool.traffic.replaced == lost


def test_an_interrupted_call_leaves_the_pool_usable(pool):
    # A background job ignores the signal; the handler there was comes back when the test ends.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.7, signal.raise_signal, [signal.SIGINT])
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            collected(pool, mishap="hang")
    finally:
        signal.signal(signal.SIGINT, before)
    assert_same(collected(pool), collected(local()))


def test_closing_ends_and_clears_away_all_workers(marker):
    pool = ProcessPool(CONFIG.format(marker=str(marker)), (3,), timeout=60.0)
    pool.start()
    (process,) = pool.processes
    pid = process.pid
    pool.close()
    pool.close()
    assert not exists(pid)


def test_a_configuration_that_does_not_build_is_the_user_s_mistake():
    pool = ProcessPool("metarl.Experiment.iterationss = 1", (1,), timeout=60.0)
    with pytest.raises(UserError, match="iterationss"):
        pool.start()
    assert not pool.processes
