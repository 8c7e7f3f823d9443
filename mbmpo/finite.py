"""Looking for numbers that are not finite, on the host: XLA drops TensorFlow's own checks."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from metarl.experiment.learner import NonFiniteError
from metarl.sampling.steps import Batch


def require_finite(what: str, values: Mapping[str, Any]) -> None:
    """Passes if all values are finite.

    Args:
        what: they are, for the message.
        values: numbers, arrays or tensors by name.

    Raises:
        NonFiniteError: names the first value that is not.
    """
    for name, value in values.items():
        if not np.isfinite(value).all():
            raise NonFiniteError(f"not finite: {name} of {what}")


def require_finite_batch(what: str, batch: Batch) -> None:
    """Passes if observations, actions and rewards of a batch are finite.

    Raises:
        NonFiniteError: names what is not.
    """
    steps = batch.steps
    require_finite(what, {"reward": steps.reward, "observation": steps.observation, "action": steps.action})
