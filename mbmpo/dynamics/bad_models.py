"""Models with errors put in on purpose (MB-MPO specification, sections 9.1 and 9.2).

Noise is a function of the seed, the model and the bits of the row itself, so that it does not depend on which other
rows are predicted in the same call; two rows with the same bits get the same noise.

Shapes: `E` ensemble members, `B` rows per member, `O` observation, `A` action.
"""

import math
import time
from collections.abc import Sequence

import gin
import numpy as np
import tensorflow as tf

from mbmpo.dynamics import normalisation, prediction
from mbmpo.dynamics.ensemble import DynamicsEnsemble, EnsembleState
from mbmpo.dynamics.fit import FitReport
from mbmpo.dynamics.normalisation import HasTransitions
from mbmpo.dynamics.prediction import Effective
from metarl.experiment import checks
from metarl.experiment.errors import UserError
from metarl.experiment.learner import Report
from metarl.seeding import keyed_generator

_STEP_LIMIT = 0.1
_HARD_DISTANCE = 0.5


@gin.configurable(module="mbmpo")
class BadDynamicsEnsemble(DynamicsEnsemble):
    """An ensemble whose predicted normalised changes get N(b_k, s²) added in every dimension (section 9.1).

    Args:
        output_bias_range: [low, high] of the uniform draw of b_k, one number per model for all dimensions.
        gaussian_noise_output_std: s.
        resample_output_bias: draw b_k again after every fit.
        num_models: this and the others as in `DynamicsEnsemble`.
        hidden_sizes: see there.
        weight_normalization: see there.
        learning_rate: see there.
        batch_size: see there.
        valid_split_ratio: see there.
        persistency: see there.
        normalize_input: see there.
        reshuffle_batch_order: see there.
        joint: see there.
    """

    def __init__(
        self,
        *,
        output_bias_range: Sequence[float] = (0.0, 0.0),
        gaussian_noise_output_std: float = 0.0,
        resample_output_bias: bool = True,
        num_models: int = 5,
        hidden_sizes: Sequence[int] = (512, 512),
        weight_normalization: bool = True,
        learning_rate: float = 1e-3,
        batch_size: int = 500,
        valid_split_ratio: float = 0.2,
        persistency: float = 0.95,
        normalize_input: bool = True,
        reshuffle_batch_order: bool = False,
        joint: bool = True,
    ):
        super().__init__(
            num_models=num_models,
            hidden_sizes=hidden_sizes,
            weight_normalization=weight_normalization,
            learning_rate=learning_rate,
            batch_size=batch_size,
            valid_split_ratio=valid_split_ratio,
            persistency=persistency,
            normalize_input=normalize_input,
            reshuffle_batch_order=reshuffle_batch_order,
            joint=joint,
        )
        name = type(self).__name__
        self.output_bias_range = _bias_range(f"{name}.output_bias_range", output_bias_range)
        self.noise_std = checks.real(f"{name}.gaussian_noise_output_std", gaussian_noise_output_std, minimum=0.0)
        self.resample_output_bias = checks.flag(f"{name}.resample_output_bias", resample_output_bias)

    def initial_state(self, seed: int, observation_dim: int, action_dim: int) -> EnsembleState:
        """The state before the first fit, biases drawn."""
        state = super().initial_state(seed, observation_dim, action_dim)
        return state._replace(output_error=_drawn_error(self.num_models, self.output_bias_range, seed, 0, "initial"))

    def predict_blocks(self, effective: Effective, observation: tf.Tensor, action: tf.Tensor) -> tf.Tensor:
        """Next observations with the errors, [E, B, O] for [E, B, O] and [E, B, A]."""
        delta = prediction.normalised_delta(effective, observation, action)
        delta += _error(effective, observation, action, self.noise_std)
        return observation + prediction.denormalised(effective, delta)

    def _after_fit(self, state: EnsembleState, seed: int, iteration: int) -> EnsembleState:
        drawn = _drawn_error(self.num_models, self.output_bias_range, seed, iteration, "after_fit")
        if not self.resample_output_bias:
            drawn["bias"] = state.output_error["bias"]
        return state._replace(output_error=drawn)


@gin.configurable(module="mbmpo")
class FakePointEnsemble(DynamicsEnsemble):
    """The point's true move plus N(b_k, s²) times a mask, instead of learned models (section 9.2).

    The mask uses d, the distance of the observation to the goal, and d_max, its maximum over the rows of the call:
    "smooth" is (d / d_max)², or (1 - d / d_max)² with the error at the goal; "hard" is 1[d > 0.5].

    Args:
        num_models: E.
        output_bias_range: [low, high] of the uniform draw of b_k, redrawn at every "fit".
        gaussian_noise_output_std: s.
        mask: "smooth" or "hard".
        error_at_goal: turn the smooth mask round.
        goal: of the point.
        action_scale: metres that an action of 1 asks for. The original's models take the policy's normalised action for
            metres; 0.1 moves as the real point does.
    """

    def __init__(
        self,
        *,
        num_models: int = 5,
        output_bias_range: Sequence[float] = (0.0, 0.0),
        gaussian_noise_output_std: float = 0.0,
        mask: str = "smooth",
        error_at_goal: bool = False,
        goal: Sequence[float] = (0.0, 0.0),
        action_scale: float = 1.0,
    ):
        # The smallest network that satisfies the common state; it is never trained and never asked.
        super().__init__(
            num_models=num_models,
            hidden_sizes=(1,),
            weight_normalization=True,
            learning_rate=0.0,
            batch_size=1,
            valid_split_ratio=0.2,
            persistency=0.99,
            normalize_input=True,
            reshuffle_batch_order=False,
            joint=False,
        )
        name = type(self).__name__
        self.output_bias_range = _bias_range(f"{name}.output_bias_range", output_bias_range)
        self.noise_std = checks.real(f"{name}.gaussian_noise_output_std", gaussian_noise_output_std, minimum=0.0)
        self.mask = checks.choice(f"{name}.mask", mask, ("smooth", "hard"))
        self.error_at_goal = checks.flag(f"{name}.error_at_goal", error_at_goal)
        if self.mask == "hard" and self.error_at_goal:
            raise UserError(f"{name}.error_at_goal needs the mask 'smooth'")
        self.goal = _pair(f"{name}.goal", goal)
        self.action_scale = checks.real(f"{name}.action_scale", action_scale, minimum=0.0)

    def initial_state(self, seed: int, observation_dim: int, action_dim: int) -> EnsembleState:
        """The state before the first "fit", biases drawn.

        Raises:
            UserError: not a point in the plane.
        """
        if (observation_dim, action_dim) != (2, 2):
            raise UserError(
                f"FakePointEnsemble knows the point only: 2 observations and 2 actions, not {observation_dim} and "
                f"{action_dim}"
            )
        state = super().initial_state(seed, observation_dim, action_dim)
        return state._replace(output_error=_drawn_error(self.num_models, self.output_bias_range, seed, 0, "initial"))

    def num_train_rows(self, num_rows: int) -> int:
        """None: nothing is trained, so that any number of rows will do."""
        del num_rows
        return 0

    def fit(
        self,
        state: EnsembleState,
        transitions: HasTransitions,
        *,
        seed: int,
        iteration: int,
        max_epochs: int,
        report: Report | None = None,
        permutations: np.ndarray | None = None,
        batch_order: np.ndarray | None = None,
    ) -> tuple[EnsembleState, FitReport]:
        """Draws new biases; the reported losses are the mean squared errors that they cause, in normalised units."""
        begin = time.perf_counter()
        error = _drawn_error(self.num_models, self.output_bias_range, seed, iteration, "after_fit")
        statistics = normalisation.of_transitions(transitions)
        state = state._replace(output_error=error, normalisation=statistics)
        scale = np.asarray(statistics.delta_std) + normalisation.EPSILON
        loss = np.square(self.one_step_error(self.effective(state), transitions) / scale).mean(axis=1)
        row = loss[np.newaxis].astype(np.float32)
        last_epoch = np.zeros(self.num_models, np.int64)
        return state, FitReport(row, row, last_epoch, 1, time.perf_counter() - begin, row[np.newaxis])

    @property
    def couples_rows(self) -> bool:
        """The smooth mask's d_max is over all rows."""
        return self.mask == "smooth"

    def predict_blocks(self, effective: Effective, observation: tf.Tensor, action: tf.Tensor) -> tf.Tensor:
        """Next observations with the errors, [E, B, 2] for [E, B, 2] and [E, B, 2]."""
        distance = tf.norm(observation - tf.constant(self.goal), axis=-1, keepdims=True)
        if self.mask == "hard":
            mask = tf.cast(distance > _HARD_DISTANCE, tf.float32)
        else:
            share = tf.math.divide_no_nan(distance, tf.reduce_max(distance))
            mask = tf.square(1.0 - share if self.error_at_goal else share)
        move = tf.clip_by_value(self.action_scale * action, -_STEP_LIMIT, _STEP_LIMIT)
        return observation + move + mask * _error(effective, observation, action, self.noise_std)


def _drawn_error(
    num_models: int, bias_range: tuple[float, float], seed: int, iteration: int, when: str
) -> dict[str, tf.Tensor]:
    """Biases [E] and the key of the noise [2]."""
    generator = keyed_generator(seed, iteration, f"model_error/{when}")
    bias = generator.uniform(*bias_range, num_models).astype(np.float32)
    key = generator.integers(0, 2**31, 2).astype(np.int32)
    return {"bias": tf.constant(bias), "noise_key": tf.constant(key)}


def _error(effective: Effective, observation: tf.Tensor, action: tf.Tensor, noise_std: float) -> tf.Tensor:
    """Bias and noise, broadcastable to [E, B, O]."""
    error = effective.output_error["bias"][:, tf.newaxis, tf.newaxis]
    if noise_std > 0.0:
        which = effective.output_error["model"]
        error += noise_std * row_noise(effective.output_error["noise_key"], which, observation, action)
    return error


def row_noise(key: tf.Tensor, models: tf.Tensor, observation: tf.Tensor, action: tf.Tensor) -> tf.Tensor:
    """Standard normal numbers [E, B, O] that depend on the key, the model and the row's bits only.

    Args:
        key: [2] int32.
        models: [E] int32, the number of every block's model.
        observation: [E, B, O].
        action: [E, B, A].
    """
    width = observation.shape[-1]
    row = tf.bitcast(tf.concat([observation, action], axis=-1), tf.uint32)
    members = tf.cast(models, tf.uint32)[:, tf.newaxis]
    first, second = tf.unstack(tf.bitcast(key, tf.uint32))
    hashed = _mixed(tf.bitwise.bitwise_xor(_mixed(members + first), second)) + tf.zeros_like(row[..., 0])
    for i in range(row.shape[-1]):
        hashed = _mixed(tf.bitwise.bitwise_xor(hashed, row[..., i]) + _constant(0x9E3779B9))
    columns = tf.range(2 * width, dtype=tf.int32)
    bits = _mixed(_mixed(hashed[..., tf.newaxis] + tf.cast(columns, tf.uint32) * _constant(0x85EBCA6B)))
    # The upper 24 bits as a number strictly between 0 and 1: log and cosine of Box and Muller are then finite.
    high = tf.cast(tf.bitwise.right_shift(bits, _constant(8)), tf.int32)
    uniform = (tf.cast(high, tf.float32) + 0.5) / 2.0**24
    radius = tf.sqrt(-2.0 * tf.math.log(tf.minimum(uniform[..., :width], 1.0 - 2.0**-24)))
    return radius * tf.cos(2.0 * math.pi * uniform[..., width:])


def _mixed(x: tf.Tensor) -> tf.Tensor:
    """An integer hash: every bit of the input changes about half of the output's."""
    x = tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, _constant(16))) * _constant(0x7FEB352D)
    x = tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, _constant(15))) * _constant(0x846CA68B)
    return tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, _constant(16)))


def _constant(value: int) -> tf.Tensor:
    return tf.constant(value, tf.uint32)


def _bias_range(name: str, value: Sequence[float]) -> tuple[float, float]:
    low, high = _pair(name, value)
    if low > high:
        raise UserError(f"{name} must be [low, high] with low <= high, got {value!r}")
    return low, high


def _pair(name: str, value: Sequence[float]) -> tuple[float, float]:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise UserError(f"{name} must be two numbers, got {value!r}")
    return checks.real(f"{name}[0]", value[0]), checks.real(f"{name}[1]", value[1])
