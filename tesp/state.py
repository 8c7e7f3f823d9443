"""A learner's state as flat named arrays, for checkpoints without executable content."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from metarl.experiment.errors import UserError, did_you_mean


def flatten(prefix: str, structure: Any) -> dict[str, np.ndarray]:
    """Tensors of a NamedTuple of dictionaries as arrays called `<prefix>/<field>/<name>`."""
    return {
        f"{prefix}/{field}/{name}": np.asarray(value)
        for field, part in structure._asdict().items()
        for name, value in part.items()
    }


def unflatten(prefix: str, arrays: Mapping[str, np.ndarray], like: Any) -> Any:
    """The structure that `flatten` took apart; `like` gives its form."""
    parts = {
        field: {name: tf.constant(arrays[f"{prefix}/{field}/{name}"]) for name in part}
        for field, part in like._asdict().items()
    }
    return type(like)(**parts)


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


def require_same_arrays(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> None:
    """Raises UserError naming the first array that is missing, unexpected or of another shape."""
    for name, value in expected.items():
        if name not in found:
            raise UserError(f"the checkpoint lacks the array {name!r}{did_you_mean(name, found)}")
        if np.shape(found[name]) != np.shape(value):
            raise UserError(
                f"the checkpoint's {name!r} has shape {np.shape(found[name])},"
                f" this configuration needs {np.shape(value)}"
            )
    for name in found:
        if name not in expected:
            raise UserError(f"the checkpoint holds {name!r}, which this configuration does not have")
