"""A learner's state as flat named arrays, for checkpoints without executable content."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from metarl.experiment.errors import UserError, did_you_mean


def flatten(prefix: str, structure: Any) -> dict[str, np.ndarray]:
    """Leaves of a nest of dictionaries, named tuples, tuples and lists as arrays called `<prefix>/<field>/<key>/...`.

    None is a leaf that holds nothing; an empty prefix leaves its part out.
    """
    if structure is None:
        return {}
    arrays: dict[str, np.ndarray] = {}
    children = _children(structure)
    if children is None:
        return {prefix: np.asarray(structure)}
    for name, child in children:
        arrays |= flatten(_path(prefix, name), child)
    return arrays


def unflatten(prefix: str, arrays: Mapping[str, np.ndarray], like: Any) -> Any:
    """The structure that `flatten` took apart; `like` gives its form, and what is a tensor and what a number or array.

    Shapes may differ from those of `like`.
    """
    if like is None:
        return None
    children = _children(like)
    if children is None:
        return _leaf_like(like, np.asarray(arrays[prefix]))
    parts = [unflatten(_path(prefix, name), arrays, child) for name, child in children]
    if isinstance(like, Mapping):
        return dict(zip(like, parts, strict=True))
    return type(like)(*parts) if hasattr(like, "_fields") else type(like)(parts)


def _path(prefix: str, name: str) -> str:
    return f"{prefix}/{name}" if prefix else name


def _children(structure: Any) -> list[tuple[str, Any]] | None:
    """Named parts of a nest's node; None for a leaf."""
    if isinstance(structure, Mapping):
        return [(str(key), value) for key, value in structure.items()]
    if hasattr(structure, "_fields"):
        return list(zip(structure._fields, structure, strict=True))
    if isinstance(structure, list | tuple):
        return [(str(index), value) for index, value in enumerate(structure)]
    return None


def _leaf_like(like: Any, array: np.ndarray) -> Any:
    if isinstance(like, np.ndarray):
        return array.copy()
    if isinstance(like, bool | int | float | np.generic):
        return type(like)(array.item())
    return tf.constant(array)


def random_state_arrays(prefix: str, stream: np.random.RandomState) -> dict[str, np.ndarray]:
    """A legacy NumPy generator's state as arrays."""
    _, key, position, has_gauss, cached = stream.get_state()
    return {
        f"{prefix}/key": np.asarray(key),
        f"{prefix}/position": np.asarray([position, has_gauss], np.int64),
        f"{prefix}/cached": np.asarray(cached, np.float64),
    }


def random_state_from(prefix: str, arrays: Mapping[str, np.ndarray]) -> np.random.RandomState:
    """The generator that `random_state_arrays` described."""
    position, has_gauss = (int(value) for value in arrays[f"{prefix}/position"])
    stream = np.random.RandomState()
    stream.set_state(("MT19937", arrays[f"{prefix}/key"], position, has_gauss, float(arrays[f"{prefix}/cached"])))
    return stream


def require_same_arrays(
    found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], growing: tuple[str, ...] = ()
) -> None:
    """Checks that a checkpoint fits a configuration.

    Args:
        found: the checkpoint's arrays.
        expected: the learner's own.
        growing: prefixes of arrays whose first axis may have any length, such as a buffer's.

    Raises:
        UserError: names the first array that is missing, unexpected or of another shape.
    """
    for name, value in expected.items():
        if name not in found:
            raise UserError(f"the checkpoint lacks the array {name!r}{did_you_mean(name, found)}")
        first = 1 if name.startswith(growing) and growing else 0
        if np.shape(found[name])[first:] != np.shape(value)[first:]:
            raise UserError(
                f"the checkpoint's {name!r} has shape {np.shape(found[name])},"
                f" this configuration needs {np.shape(value)}"
            )
    for name in found:
        if name not in expected:
            raise UserError(f"the checkpoint holds {name!r}, which this configuration does not have")
