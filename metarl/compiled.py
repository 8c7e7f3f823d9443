"""Compiled functions that are called often, with large nests of tensors."""

from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any

import tensorflow as tf


def flat_call(concrete: Any) -> Callable[[list[tf.Tensor]], Any]:
    """Returns a concrete function as a function of a list of tensors, by the shortest way that this TensorFlow has.

    Binding arguments to names and nests costs a public call 0.1 ms for a few tensors and a millisecond for twenty, all
    of it under the interpreter lock. The short way checks nothing: the caller vouches for number, shapes and types.
    """
    call_flat = getattr(concrete, "_call_flat", None)
    if call_flat is None:
        return lambda tensors: concrete(*tensors)
    captured = concrete.captured_inputs
    return lambda tensors: call_flat(tensors, captured)


class Compiled:
    """A function of nests of tensors, traced once per form and shapes of its arguments, and quick to call.

    A nest is made of dictionaries with string keys, tuples, named tuples and lists; its leaves are tensors, arrays or
    None. Python numbers become tensors.

    Args:
        function: TensorFlow code without Python control flow on tensors; positional arguments only.
    """

    def __init__(self, function: Callable[..., Any]):
        self._function = function
        self._traces: dict[Hashable, tuple[Callable[[list[tf.Tensor]], list[tf.Tensor]], Any]] = {}

    def __call__(self, *arguments: Any) -> Any:
        """Applies the function."""
        tensors: list[tf.Tensor] = []
        form = _flatten(arguments, tensors)
        trace = self._traces.get(form)
        if trace is None:
            trace = self._traces[form] = self._trace(arguments, tensors)
        call, result = trace
        return _pack(result, iter(call(tensors)))

    def experimental_get_tracing_count(self) -> int:
        """How often the function has been traced; named like `tf.function`'s."""
        return len(self._traces)

    def _trace(self, arguments: Any, tensors: list[tf.Tensor]) -> tuple[Callable[[list[tf.Tensor]], Any], Any]:
        """The short call of a new trace, and a nest of the form of the function's result."""
        results = []

        def flat_function(*inputs: tf.Tensor) -> list[tf.Tensor]:
            result = self._function(*_pack(arguments, iter(inputs)))
            outputs: list[tf.Tensor] = []
            _flatten(result, outputs)
            results.append(_pack(result, iter([True] * len(outputs))))
            return outputs

        compiled = tf.function(flat_function, autograph=False)
        concrete = compiled.get_concrete_function(*(tf.TensorSpec(x.shape, x.dtype) for x in tensors))
        return flat_call(concrete), results[-1]


def _flatten(nest: Any, tensors: list[tf.Tensor]) -> Hashable:
    """Appends the leaves to `tensors`; returns what tells forms, shapes and types apart."""
    if isinstance(nest, tf.Tensor):
        tensors.append(nest)
        return nest.dtype, *nest.shape
    if nest is None:
        return None
    if isinstance(nest, Mapping):
        return type(nest), tuple((key, _flatten(nest[key], tensors)) for key in sorted(nest))
    if isinstance(nest, tuple | list):
        return type(nest), tuple(_flatten(part, tensors) for part in nest)
    return _flatten(tf.convert_to_tensor(nest), tensors)


def _pack(nest: Any, leaves: Iterator[Any]) -> Any:
    """A nest of the same form with other leaves."""
    if nest is None:
        return None
    if isinstance(nest, Mapping):
        return {key: _pack(nest[key], leaves) for key in sorted(nest)}
    if isinstance(nest, tuple | list):
        parts = [_pack(part, leaves) for part in nest]
        return type(nest)(*parts) if hasattr(nest, "_fields") else type(nest)(parts)
    return next(leaves)
