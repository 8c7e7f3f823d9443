"""The linear feature baseline: ridge regression of returns on features of state and time (TESP specification, 3.6).

The regression is float64: with a constant observation column only the ridge separates two equal features, which float32
cannot resolve. Its data are what the sampler recorded: the squares and the targets are rounded to float32, as in TESP's
original program; MB-MPO's did not round, and passes float64 observations and `rounded=False`.

Shapes: `M` tasks, `S` steps per task, `O` observation, `B` = 2O + 4 features.
"""

import tensorflow as tf

_MAX_RETRIES = 5


def features(observation: tf.Tensor, time: tf.Tensor) -> tf.Tensor:
    """[o, o^2, t/100, (t/100)^2, (t/100)^3, 1] with o = clip(observation, -10, 10).

    Args:
        observation: [M, S, O]; its type is that of the squares.
        time: [M, S], index of the step in its episode.

    Returns:
        [M, S, B] float64.
    """
    o = tf.clip_by_value(observation, -10.0, 10.0)
    state = tf.cast(tf.concat([o, tf.square(o)], axis=-1), tf.float64)
    t = tf.cast(time, tf.float64)[..., tf.newaxis] / 100.0
    return tf.concat([state, t, t**2, t**3, tf.ones_like(t)], axis=-1)


def fit(phi: tf.Tensor, target: tf.Tensor, valid: tf.Tensor, ridge: float = 1e-5, rounded: bool = True) -> tf.Tensor:
    """Solves (Phi^T Phi + ridge I) w = Phi^T target for every task.

    Where the solution is not finite the ridge is multiplied by ten, up to five times. Non-finite features or targets
    give non-finite coefficients: they are for the trainer's guard to report, not for this function to hide.

    Args:
        phi: [M, S, B] float64.
        target: [M, S].
        valid: [M, S] bool; other rows do not count.
        ridge: coefficient of the identity.
        rounded: round the target to float32.

    Returns:
        [M, B] float64.
    """
    return solved(*normal_equations(phi, target, valid, rounded), ridge)


def normal_equations(
    phi: tf.Tensor, target: tf.Tensor, valid: tf.Tensor, rounded: bool = True
) -> tuple[tf.Tensor, tf.Tensor]:
    """Phi^T Phi [M, B, B] and Phi^T target [M, B, 1], whose sums over parts of the rows are those of all rows.

    Arguments as in `fit`.
    """
    target = tf.cast(tf.cast(target, tf.float32) if rounded else target, tf.float64)
    rows = tf.where(valid[..., tf.newaxis], phi, tf.zeros_like(phi))
    gram = tf.matmul(rows, rows, transpose_a=True)
    moment = tf.matmul(rows, tf.where(valid, target, tf.zeros_like(target))[..., tf.newaxis], transpose_a=True)
    return gram, moment


def solved(gram: tf.Tensor, moment: tf.Tensor, ridge: float = 1e-5) -> tf.Tensor:
    """The coefficients [M, B] of normal equations; see `fit`."""
    finite = tf.reduce_all(tf.math.is_finite(gram), axis=[1, 2], keepdims=True)
    identity = tf.eye(gram.shape[-1], dtype=tf.float64)
    # The solver raises on non-finite input, so those tasks solve with the identity and are marked afterwards.
    solvable = tf.where(finite, gram, identity)

    def solve(strength: tf.Tensor) -> tf.Tensor:
        return tf.linalg.solve(solvable + strength * identity, moment)

    def unsolved(attempt: tf.Tensor, strength: tf.Tensor, solution: tf.Tensor) -> tf.Tensor:
        nan = tf.reduce_any(tf.math.is_nan(tf.where(finite, solution, tf.zeros_like(solution))))
        return tf.logical_and(attempt < _MAX_RETRIES, nan)

    def retry(attempt: tf.Tensor, strength: tf.Tensor, solution: tf.Tensor) -> tuple[tf.Tensor, ...]:
        stronger = strength * 10.0
        return attempt + 1, stronger, tf.where(tf.math.is_nan(solution), solve(stronger), solution)

    strength = tf.constant(ridge, tf.float64)
    _, _, solution = tf.while_loop(unsolved, retry, [tf.constant(0), strength, solve(strength)])
    undefined = tf.fill(tf.shape(solution), tf.constant(float("nan"), tf.float64))
    return tf.where(finite, solution, undefined)[..., 0]


def predict(phi: tf.Tensor, coefficients: tf.Tensor) -> tf.Tensor:
    """Value predictions [M, S] float64 from features [M, S, B] and coefficients [M, B]."""
    return tf.matmul(phi, coefficients[..., tf.newaxis])[..., 0]
