"""Adam with TensorFlow 1's constants, as a pure function on any structure of tensors (TESP specification, 3.5).

Keras 3's Adam differs in epsilon (1e-7); here it is 1e-8, added outside the bias correction.
"""

import math
from typing import Any, NamedTuple

import tensorflow as tf

from metarl.compiled import Compiled


class AdamState(NamedTuple):
    """First and second moments (structures like the parameters) and the number of steps taken."""

    first_moment: Any
    second_moment: Any
    step: int


def adam_init(parameters: Any) -> AdamState:
    """Returns the state before the first step: zero moments."""
    zeros = tf.nest.map_structure(tf.zeros_like, parameters)
    return AdamState(zeros, tf.nest.map_structure(tf.zeros_like, parameters), 0)


def adam_step(
    parameters: Any,
    gradients: Any,
    state: AdamState,
    learning_rate: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
    count: int = 1,
) -> tuple[Any, AdamState]:
    """One step: p - lr sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + epsilon).

    Args:
        parameters: structure of float tensors.
        gradients: the same structure.
        state: as returned by the step before.
        learning_rate: the step size before bias correction.
        beta1: decay of the first moment.
        beta2: decay of the second moment.
        epsilon: added to the root of the second moment.
        count: the gradients are sums over so many, and the step follows their mean: a call less than dividing before.

    Returns:
        The new parameters and the new state; the arguments are untouched.
    """
    step = state.step + 1
    corrected = learning_rate * math.sqrt(1.0 - beta2**step) / (1.0 - beta1**step)
    constants = tf.constant((corrected, beta1, beta2, epsilon, count), tf.float32)
    parameters, first, second = _update(parameters, gradients, state.first_moment, state.second_moment, constants)
    return parameters, AdamState(first, second, step)


@Compiled
def _update(parameters: Any, gradients: Any, first: Any, second: Any, constants: tf.Tensor) -> tuple[Any, Any, Any]:
    rate, beta1, beta2, epsilon, count = tf.unstack(constants)
    gradients = tf.nest.map_structure(lambda g: g / count, gradients)
    first = tf.nest.map_structure(lambda m, g: m + (g - m) * (1.0 - beta1), first, gradients)
    second = tf.nest.map_structure(lambda v, g: v + (tf.square(g) - v) * (1.0 - beta2), second, gradients)
    parameters = tf.nest.map_structure(lambda p, m, v: p - rate * m / (tf.sqrt(v) + epsilon), parameters, first, second)
    return parameters, first, second
