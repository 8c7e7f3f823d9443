"""The dynamics ensemble: state, fit and predictions (MB-MPO specification, section 2).

Shapes: `E` ensemble members, `B` rows per member, `N` rows, `O` observation, `A` action.
"""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import gin
import numpy as np
import tensorflow as tf

from mbmpo.dynamics import networks, normalisation, prediction
from mbmpo.dynamics.early_stopping import EarlyStopping
from mbmpo.dynamics.fit import EpochData, FitReport, Member, TrainerPool
from mbmpo.dynamics.normalisation import HasTransitions, Normalisation
from mbmpo.dynamics.prediction import Effective
from metarl.experiment import checks
from metarl.experiment.errors import UserError
from metarl.experiment.learner import NonFiniteError, Report
from metarl.seeding import keyed_generator


class EnsembleState(NamedTuple):
    """All that a fit changes.

    Attributes:
        weights: "layer<i>.v", "layer<i>.g", "layer<i>.bias" with a leading E; see `networks`.
        first_moment: Adam's, like `weights`.
        second_moment: Adam's, like `weights`.
        step: [E] int64, steps that each member's Adam has taken.
        normalisation: statistics of the last fit.
        output_error: what models with added errors remember, by name; empty for honest models.
    """

    weights: dict[str, tf.Tensor]
    first_moment: dict[str, tf.Tensor]
    second_moment: dict[str, tf.Tensor]
    step: tf.Tensor
    normalisation: Normalisation
    output_error: dict[str, tf.Tensor]


@gin.configurable(module="mbmpo")
class DynamicsEnsemble:
    """E networks that predict the normalised change of the observation, each with its own split, Adam and early stop.

    Args:
        num_models: E.
        hidden_sizes: widths of the ReLU layers.
        weight_normalization: learn direction and length of every column of every kernel apart.
        learning_rate: Adam's.
        batch_size: rows of a batch.
        valid_split_ratio: share of the rows that validate.
        persistency: of the early stop's average of validation losses.
        normalize_input: normalise observations, actions and changes.
        reshuffle_batch_order: a new order of the batches in every epoch. False: the same order in every epoch of every
            fit with as many batches, as in the original's seeded runs (O-22).
        joint: train as one model: same split and batches for all, one loss (the mean), one early stop.
    """

    def __init__(
        self,
        *,
        num_models: int = 5,
        hidden_sizes: Sequence[int] = (512, 512),
        weight_normalization: bool = True,
        learning_rate: float = 1e-3,
        batch_size: int = 500,
        valid_split_ratio: float = 0.2,
        persistency: float = 0.99,
        normalize_input: bool = True,
        reshuffle_batch_order: bool = False,
        joint: bool = False,
    ):
        name = type(self).__name__
        self.num_models = checks.integer(f"{name}.num_models", num_models, minimum=1)
        self.num_members = self.num_models
        self.hidden_sizes = checks.integers(f"{name}.hidden_sizes", hidden_sizes, minimum=1)
        self.weight_normalization = checks.flag(f"{name}.weight_normalization", weight_normalization)
        self.learning_rate = checks.real(f"{name}.learning_rate", learning_rate, minimum=0.0)
        self.batch_size = checks.integer(f"{name}.batch_size", batch_size, minimum=1)
        self.valid_split_ratio = checks.real(f"{name}.valid_split_ratio", valid_split_ratio, minimum=0.0, maximum=1.0)
        self.persistency = checks.real(f"{name}.persistency", persistency, minimum=0.0, maximum=1.0)
        self.normalize_input = checks.flag(f"{name}.normalize_input", normalize_input)
        self.reshuffle_batch_order = checks.flag(f"{name}.reshuffle_batch_order", reshuffle_batch_order)
        self.joint = checks.flag(f"{name}.joint", joint)
        self._trainers: dict[tuple[int, ...], TrainerPool] = {}

    @property
    def couples_rows(self) -> bool:
        """Whether a row's prediction depends on the other rows of the call, so that rows cannot be split."""
        return False

    def __getstate__(self) -> dict[str, Any]:
        """Compiled functions stay behind when an ensemble is sent to another process."""
        return {**self.__dict__, "_trainers": {}}

    def initial_state(self, seed: int, observation_dim: int, action_dim: int) -> EnsembleState:
        """The state before the first fit, a function of the seed.

        Args:
            seed: of the experiment.
            observation_dim: O.
            action_dim: A.
        """
        weights = self._fresh_weights(seed, "model", observation_dim, action_dim)
        zeros = {name: tf.zeros_like(value) for name, value in weights.items()}
        step = tf.zeros([self.num_members], tf.int64)
        statistics = normalisation.identity(observation_dim, action_dim)
        return EnsembleState(weights, zeros, dict(zeros), step, statistics, {})

    def reinitialised(self, state: EnsembleState, seed: int, iteration: int) -> EnsembleState:
        """Fresh weights and optimisers (section 2, Reinitialise), drawn for this iteration."""
        widths = state.normalisation.observation_mean.shape[0], state.normalisation.action_mean.shape[0]
        weights = self._fresh_weights(seed, f"reinitialised{iteration}/model", *widths)
        zeros = {name: tf.zeros_like(value) for name, value in weights.items()}
        return state._replace(
            weights=weights, first_moment=zeros, second_moment=dict(zeros), step=tf.zeros_like(state.step)
        )

    def num_train_rows(self, num_rows: int) -> int:
        """Rows of N that train, floor((1 - ratio) N); the rest validate.

        Raises:
            UserError: nothing is left to train on or to validate with.
        """
        num_train = int((1.0 - self.valid_split_ratio) * num_rows)
        if not 0 < num_train < num_rows:
            kind = "training" if num_train == 0 else "validation"
            raise UserError(
                f"{type(self).__name__}.valid_split_ratio {self.valid_split_ratio} of {num_rows} transitions leaves no "
                f"{kind} rows; early stopping needs both"
            )
        return num_train

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
        """Trains from where the fit before left the members, until all have stopped.

        Args:
            state: before.
            transitions: N rows.
            seed: of the experiment; splits and batch orders are drawn from it.
            iteration: of the experiment.
            max_epochs: epochs allowed.
            report: told the epoch and the mean validation loss.
            permutations: [E, N] instead of drawn ones.
            batch_order: [epochs, batches] instead of drawn ones.

        Returns:
            The new state and the course of the fit.

        Raises:
            UserError: no rows to train on or to validate with.
            NonFiniteError: a loss is not finite.
        """
        begin = time.perf_counter()
        N = len(transitions.observation)
        num_train = self.num_train_rows(N)
        statistics = state.normalisation
        if self.normalize_input:
            statistics = normalisation.of_transitions(transitions)
        x, y = (tf.constant(array) for array in normalisation.training_data(statistics, transitions))
        if permutations is None:
            permutations = self._permutations(N, seed, iteration)
        rows = [tf.constant(permutation, tf.int32) for permutation in permutations]
        num_batches = -(-num_train // self.batch_size)
        trainers = self._trainer_pool(x.shape[1], y.shape[1])
        scale = tf.constant(1.0 / self.num_members if self.joint else 1.0)
        members = _members(state)
        stopping = EarlyStopping(1 if self.joint else self.num_members, self.persistency, max_epochs)
        batch_losses, valid_losses = [], []
        while stopping.active.any():
            epoch = stopping.epochs_run
            if batch_order is None:
                order = self._batch_order(num_batches, seed, iteration, epoch)
            else:
                order = np.asarray(batch_order)[epoch]
            active = np.broadcast_to(stopping.active, [self.num_members])
            rest = tf.constant(num_train), tf.constant(order, tf.int32), scale
            numbers = np.flatnonzero(active)
            trained = trainers.epochs([members[k] for k in numbers], [EpochData(x, y, rows[k], *rest) for k in numbers])
            batch_loss = np.full([num_batches, self.num_members], np.nan, np.float32)
            valid_loss = np.full([self.num_members], np.nan, np.float32)
            for k, (member, losses, loss) in zip(numbers, trained, strict=True):
                members[k], batch_loss[:, k], valid_loss[k] = member, losses.numpy(), loss.numpy()
            _require_finite(batch_loss, valid_loss, active, epoch)
            batch_losses.append(batch_loss)
            valid_losses.append(valid_loss)
            mean = float(np.mean(valid_loss[active]))
            stopping.update(np.asarray([mean]) if self.joint else valid_loss)
            if report is not None:
                report(f"model fit epoch {epoch + 1}/{max_epochs}, validation loss {mean:.4f}")
        batch_loss = np.stack(batch_losses)
        last_epoch = np.broadcast_to(stopping.last_epoch, [self.num_members]).copy()
        seconds = time.perf_counter() - begin
        result = FitReport(
            batch_loss.mean(axis=1), np.stack(valid_losses), last_epoch, stopping.epochs_run, seconds, batch_loss
        )
        return self._after_fit(_stacked(state, members, statistics), seed, iteration), result

    def effective(self, state: EnsembleState) -> Effective:
        """What prediction needs, computed once per fit."""
        single = Normalisation(*(tf.cast(value, tf.float32) for value in state.normalisation))
        error = dict(state.output_error)
        if error:
            # Noise is a model's own, wherever the model's blocks stand; not in the state, because always the same.
            error["model"] = tf.range(self.num_models)
        return Effective(networks.effective_layers(state.weights), single, error)

    def selected(self, effective: Effective, models: np.ndarray) -> Effective:
        """What models [k], repetitions among them, predict k blocks with."""
        members = self._members_of(models)
        layers = tf.nest.map_structure(lambda x: tf.gather(x, members), effective.layers)
        error = dict(effective.output_error)
        for name in error.keys() & {"bias", "model"}:
            error[name] = tf.gather(error[name], models)
        return effective._replace(layers=layers, output_error=error)

    def _members_of(self, models: np.ndarray) -> np.ndarray:
        """The networks of models [k], model by model."""
        return models

    def predict_blocks(self, effective: Effective, observation: tf.Tensor, action: tf.Tensor) -> tf.Tensor:
        """Next observations of block e by model e, [E, B, O] for [E, B, O] and [E, B, A]."""
        delta = prediction.normalised_delta(effective, observation, action)
        return observation + prediction.denormalised(effective, delta)

    def predict_model_batches(self, effective: Effective, observation: tf.Tensor, action: tf.Tensor) -> tf.Tensor:
        """Next observations [N, O] of N rows in E equal contiguous blocks, block e by model e."""
        blocks = [tf.reshape(x, [self.num_models, -1, x.shape[-1]]) for x in (observation, action)]
        return tf.reshape(self.predict_blocks(effective, *blocks), tf.shape(observation))

    def predict_all(self, effective: Effective, observation: tf.Tensor, action: tf.Tensor) -> tf.Tensor:
        """Every model's next observation of every row, [N, O, E] for [N, O] and [N, A]."""
        return prediction.all_members(
            lambda o, a: self.predict_blocks(effective, o, a), self.num_models, observation, action
        )

    def predict_mean(self, effective: Effective, observation: tf.Tensor, action: tf.Tensor) -> tf.Tensor:
        """Mean over the models, [N, O]."""
        return tf.reduce_mean(self.predict_all(effective, observation, action), axis=-1)

    def predict_std(self, effective: Effective, observation: tf.Tensor, action: tf.Tensor) -> tf.Tensor:
        """Population standard deviation over the models, [N, O]."""
        return tf.math.reduce_std(self.predict_all(effective, observation, action), axis=-1)

    def disagreement(self, effective: Effective, observation: tf.Tensor, action: tf.Tensor) -> tf.Tensor:
        """`predict_std` averaged over the dimensions, [N] (section 9.2)."""
        return tf.reduce_mean(self.predict_std(effective, observation, action), axis=-1)

    def predict_random(
        self, effective: Effective, observation: tf.Tensor, action: tf.Tensor, member: tf.Tensor
    ) -> tf.Tensor:
        """Next observations [N, O] of each row by its `member` [N] int32; N static. See `prediction.by_member`."""
        return prediction.by_member(
            lambda o, a: self.predict_blocks(effective, o, a), self.num_models, observation, action, member
        )

    def one_step_error(self, effective: Effective, transitions: HasTransitions, rows: int = 2000) -> np.ndarray:
        """Root-mean-square error of one-step predictions, [E, O] in the units of the observation.

        Args:
            effective: the models.
            transitions: N rows.
            rows: predicted at a time.
        """
        total = np.zeros([self.num_models, transitions.observation.shape[1]])
        N = len(transitions.observation)
        for begin in range(0, N, rows):
            part = slice(begin, begin + rows)
            observation = tf.constant(transitions.observation[part], tf.float32)
            action = tf.constant(transitions.action[part], tf.float32)
            found = self.predict_all(effective, observation, action).numpy().astype(np.float64)
            error = found - np.asarray(transitions.next_observation[part], np.float64)[..., np.newaxis]
            total += np.square(error).sum(axis=0).T
        return np.sqrt(total / N)

    def _after_fit(self, state: EnsembleState, seed: int, iteration: int) -> EnsembleState:
        """What else changes with a fit; nothing here."""
        return state

    def _fresh_weights(self, seed: int, name: str, observation_dim: int, action_dim: int) -> networks.Weights:
        widths = [observation_dim + action_dim, *self.hidden_sizes, observation_dim]
        members = [
            networks.initial_weights(seed, f"{name}{k}", widths, self.weight_normalization)
            for k in range(self.num_members)
        ]
        return {key: tf.stack([weights[key] for weights in members]) for key in members[0]}

    def _trainer_pool(self, input_dim: int, output_dim: int) -> TrainerPool:
        widths = (input_dim, *self.hidden_sizes, output_dim)
        if widths not in self._trainers:
            self._trainers[widths] = TrainerPool(
                self.num_members, widths, self.weight_normalization, self.batch_size, self.learning_rate
            )
        return self._trainers[widths]

    def _permutations(self, num_rows: int, seed: int, iteration: int) -> np.ndarray:
        """[E, N], each member's own, or one for all if they train jointly."""
        members = [0] * self.num_members if self.joint else range(self.num_members)
        return np.stack([keyed_generator(seed, iteration, "model_fit/split", k).permutation(num_rows) for k in members])

    def _batch_order(self, num_batches: int, seed: int, iteration: int, epoch: int) -> np.ndarray:
        """[batches]: one order per number of batches, or a new one in every epoch of every fit."""
        if self.reshuffle_batch_order:
            generator = keyed_generator(seed, iteration, "model_fit/reshuffled_order", epoch)
        else:
            generator = keyed_generator(seed, 0, "model_fit/batch_order", num_batches)
        return generator.permutation(num_batches)


def _members(state: EnsembleState) -> list[Member]:
    def of_member(nest: dict[str, tf.Tensor], k: int) -> dict[str, tf.Tensor]:
        return {name: value[k] for name, value in nest.items()}

    return [
        Member(of_member(state.weights, k), of_member(state.first_moment, k), of_member(state.second_moment, k), step)
        for k, step in enumerate(tf.unstack(state.step))
    ]


def _stacked(state: EnsembleState, members: Sequence[Member], statistics: Normalisation) -> EnsembleState:
    weights, first, second = (
        {name: tf.stack([member[part][name] for member in members]) for name in state.weights} for part in range(3)
    )
    step = tf.stack([member.step for member in members])
    return EnsembleState(weights, first, second, step, statistics, state.output_error)


def _require_finite(batch_loss: np.ndarray, valid_loss: np.ndarray, active: np.ndarray, epoch: int) -> None:
    finite = np.isfinite(valid_loss) & np.isfinite(batch_loss).all(axis=0)
    bad = np.flatnonzero(active & ~finite)
    if bad.size:
        raise NonFiniteError(f"the loss of dynamics model {bad[0]} is not finite in epoch {epoch + 1} of the model fit")
