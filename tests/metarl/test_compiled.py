"""Compiled functions of nests: forms of arguments and results, traces, what tells two calls apart."""

from typing import Any, NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from metarl.compiled import Compiled, flat_call


class Pair(NamedTuple):
    first: Any
    second: Any


def test_nests_keep_their_form_and_their_order():
    """Dictionaries in any order of insertion, named tuples, lists, None, NumPy arrays and Python numbers."""
    function = Compiled(lambda x, y: (Pair({"b": x["b"] * y, "a": x["a"]}, None), [x["c"].first, {}], x["c"].second))
    result, listed, none = function({"c": Pair(np.float32(3), None), "b": tf.constant(2.0), "a": np.ones(2)}, 5.0)
    assert isinstance(result, Pair)
    assert result.second is None
    assert none is None
    assert result.first["b"] == 10
    assert result.first["a"].dtype == tf.float64
    assert isinstance(listed, list)
    assert listed[0] == 3
    assert listed[1] == {}


def test_traces_once_per_form_shapes_and_types():
    traced = []

    def double(nest):
        traced.append(nest)
        return tf.nest.map_structure(lambda x: 2 * x, nest)

    function = Compiled(double)
    x = tf.ones(2)
    for nest in ({"a": x}, {"a": 3 * x}, {"b": x}, (x,), [x], {"a": tf.ones(3)}, {"a": tf.ones(2, tf.int32)}, {"a": x}):
        result = function(nest)
        assert type(result) is type(nest)
        np.testing.assert_array_equal(tf.nest.flatten(result)[0], 2 * tf.nest.flatten(nest)[0])
    assert function.experimental_get_tracing_count() == len(traced) == 6


def test_result_of_the_short_way_is_that_of_the_public_one():
    """TensorFlow's short way is not part of its interface; without it the public call takes over."""

    class WithoutShortWay:
        def __init__(self, concrete):
            self._concrete = concrete

        def __call__(self, *tensors):
            return self._concrete(*tensors)

    spec = tf.TensorSpec([2], tf.float32)
    concrete = tf.function(lambda a, b: [a - b, a * b]).get_concrete_function(spec, spec)
    tensors = [tf.constant([1.0, 2.0]), tf.constant([3.0, 5.0])]
    for found in (flat_call(concrete)(tensors), flat_call(WithoutShortWay(concrete))(tensors)):
        np.testing.assert_array_equal(found, [[-2, -3], [3, 10]])


def test_variables_outside_are_read_at_every_call():
    variable = tf.Variable(1.0)
    function = Compiled(lambda x: x + variable)
    assert function(tf.constant(1.0)) == 2
    variable.assign(5.0)
    assert function(tf.constant(1.0)) == 6


def test_an_error_in_the_function_is_the_callers():
    with pytest.raises(ValueError, match="shapes"):
        Compiled(lambda x: tf.ensure_shape(x, [3]))(tf.ones(2))
