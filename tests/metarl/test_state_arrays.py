"""A learner's state as named arrays, and back."""

from typing import Any, NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from metarl.experiment import state_arrays
from metarl.experiment.errors import UserError


class Pair(NamedTuple):
    weights: Any
    step: Any


NEST = {"a": Pair({"k": tf.constant([1.0, 2.0])}, 3), "b": [np.arange(3), None, tf.constant(4)], "c": 0.5}


def test_names_are_paths():
    assert list(state_arrays.flatten("p", NEST)) == ["p/a/weights/k", "p/a/step", "p/b/0", "p/b/2", "p/c"]


def test_round_trip_keeps_values_forms_and_kinds():
    arrays = state_arrays.flatten("p", NEST)
    back = state_arrays.unflatten("p", arrays, NEST)
    assert isinstance(back["a"], Pair)
    assert back["a"].step == 3
    assert isinstance(back["a"].step, int)
    assert isinstance(back["b"][0], np.ndarray)
    assert back["b"][1] is None
    assert back["c"] == 0.5
    assert tf.is_tensor(back["b"][2])
    assert back["b"][2].dtype == tf.int32
    np.testing.assert_array_equal(back["a"].weights["k"], [1.0, 2.0])


def test_restored_arrays_are_copies():
    arrays = {"p": np.zeros(2)}
    state_arrays.unflatten("p", arrays, np.zeros(2))[0] = 1.0
    assert arrays["p"][0] == 0.0


def test_a_buffer_may_have_grown_but_not_widened():
    expected = {"buffer/x": np.zeros((0, 3)), "w": np.zeros(2)}
    found = {"buffer/x": np.zeros((7, 3)), "w": np.zeros(2)}
    state_arrays.require_same_arrays(found, expected, growing=("buffer/",))
    with pytest.raises(UserError, match="buffer/x"):
        state_arrays.require_same_arrays(found, expected)
    with pytest.raises(UserError, match="buffer/x"):
        state_arrays.require_same_arrays(found | {"buffer/x": np.zeros((7, 4))}, expected, growing=("buffer/",))


@pytest.mark.parametrize(("found", "name"), [({}, "w"), ({"w": 0.0, "v": 0.0}, "v"), ({"w": np.zeros(2)}, "w")])
def test_what_does_not_fit_is_named(found, name):
    with pytest.raises(UserError, match=repr(name)):
        state_arrays.require_same_arrays(found, {"w": np.asarray(0.0)})
