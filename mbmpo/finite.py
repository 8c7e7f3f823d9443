"""Looking for numbers that are not finite, on the host: XLA drops TensorFlow's own checks."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from metarl.experiment.learner import NonFiniteError
from metarl.sampling.steps import Batch, Steps


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
    name = not_finite(batch.steps)
    if name is not None:
        raise NonFiniteError(f"not finite: {name} of {what}")


def not_finite(steps: Steps) -> str | None:
    """The first of reward, observation and action that is not finite; None if all are."""
    values = {"reward": steps.reward, "observation": steps.observation, "action": steps.action}
    return next((name for name, value in values.items() if not np.isfinite(value).all()), None)
