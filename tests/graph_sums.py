"""Finds sums whose order may depend on timing, in the graphs that run."""

import concurrent.futures
import multiprocessing

import tensorflow as tf
from tensorflow.python.eager import context as eager_context


def sums_of_three(work):
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


def sums_of_an_addition():
    """What is found in a function that has such a sum."""
    function = tf.function(lambda x: tf.add_n([tf.tanh(x), tf.exp(x), tf.sin(x)]))
    return sums_of_three(lambda: function(tf.ones((3, 3))))


def alone(function, *arguments):
    """A module's function called in a process of its own: TensorFlow tells of the graphs of all threads, and a thread
    that an earlier test left at work may be among them."""
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as process:
        return process.submit(function, *arguments).result()
