"""Sums whose order may depend on timing: none in the graphs that run.

TensorFlow's AddN accumulates into whichever input's buffer is free, so with three inputs or more its last bit depends
on which thread was faster. Repetition finds that once in thousands of calls; the graphs show it at once.
"""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.eager import context as eager_context
from test_learner import METHODS, make_learner, silent

from metarl.scaling.shard import TaskBatch


def optimised_sums(work):
    """The AddN nodes with at least three inputs in the graphs that `work` executes."""
    eager_context.context().enable_run_metadata()
    try:
        work()
        metadata = eager_context.context().export_run_metadata()
    finally:
        eager_context.context().disable_run_metadata()
    graphs = [graphs.post_optimization_graph for graphs in metadata.function_graphs]
    assert graphs
    nodes = [node for graph in graphs for node in graph.node]
    nodes += [node for graph in graphs for function in graph.library.function for node in function.node_def]
    return sorted(node.name for node in nodes if node.op == "AddN" and node.attr["N"].i >= 3)


@pytest.mark.parametrize("method", METHODS)
def test_no_sum_depends_on_timing(method):
    learner = make_learner(method, meta_batch_size=4)
    shard = learner.shards[0]
    tasks = TaskBatch(learner.goal_sets.train[:4], np.arange(4))
    found = []

    def work():
        adaptation = shard.collect(learner.parameters, tasks, 2, 0)
        found.append(shard.evaluate(adaptation.key, learner.parameters, "outer_gradient"))

    assert optimised_sums(work) == []
    assert found


def test_the_check_sees_such_a_sum():
    function = tf.function(lambda x: tf.add_n([tf.tanh(x), tf.exp(x), tf.sin(x)]))
    assert optimised_sums(lambda: function(tf.ones((3, 3))))


def test_replayed_inner_gradients_are_free_of_it_too():
    learner = make_learner("MetaSGD", meta_batch_size=4, meta_update={"replay_inner": True})
    assert optimised_sums(lambda: learner.run_iteration(silent)) == []
