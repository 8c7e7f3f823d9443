"""Sums whose order may depend on timing: none in the graphs that run.

TensorFlow's AddN accumulates into whichever input's buffer is free, so with three inputs or more its last bit depends
on which thread was faster. Repetition finds that once in thousands of calls; the graphs show it at once.
"""

import numpy as np
import pytest
from graph_sums import alone, sums_of_an_addition, sums_of_three
from test_learner import METHODS, make_learner, silent

from metarl.scaling.shard import TaskBatch


def sums_of_a_meta_update(method):
    learner = make_learner(method, meta_batch_size=4)
    shard = learner.shards[0]
    tasks = TaskBatch(learner.goal_sets.train[:4], np.arange(4))
    found = []

    def work():
        adaptation = shard.collect(learner.parameters, tasks, 2, 0)
        found.append(shard.evaluate(adaptation.key, learner.parameters, "outer_gradient"))

    sums = sums_of_three(work)
    assert found
    return sums


def sums_of_all_methods():
    return {method: sums_of_a_meta_update(method) for method in METHODS}


@pytest.fixture(scope="module")
def sums():
    return alone(sums_of_all_methods)


@pytest.mark.parametrize("method", METHODS)
def test_no_sum_depends_on_timing(sums, method):
    assert sums[method] == []


def test_the_check_sees_such_a_sum():
    assert sums_of_an_addition()
    assert alone(sums_of_an_addition)


def sums_of_replayed_gradients():
    learner = make_learner("MetaSGD", meta_batch_size=4, meta_update={"replay_inner": True})
    return sums_of_three(lambda: learner.run_iteration(silent))


def test_replayed_inner_gradients_are_free_of_it_too():
    assert alone(sums_of_replayed_gradients) == []
