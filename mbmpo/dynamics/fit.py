"""Fitting the members of an ensemble: compiled epochs of single members (MB-MPO specification, section 2).

One member's weights, moments and batch stay in the processor's cache for a whole epoch, which makes this faster than
batched products over members, and a member that has stopped costs nothing. Members train side by side: while one waits
for work that a single core does, another's products use the other cores.

Shapes: `E` ensemble members, `N` buffer rows, `I` = O + A, `O` observation, `A` action.
"""

import queue
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from mbmpo.dynamics import networks
from metarl.scaling import cores

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8
_VALIDATION_ROWS = 1000


class FitReport(NamedTuple):
    """The course of a fit. Entries of members that had stopped are NaN.

    Attributes:
        train_loss: [epochs, E] mean over the batches of their losses before their steps.
        valid_loss: [epochs, E] after the epoch.
        last_epoch: [E] 0-based epoch in which each member stopped.
        epochs_run: epochs made.
        seconds: wall-clock time.
        batch_loss: [epochs, batches, E] loss of each batch before its step, in the order of delivery.
    """

    train_loss: np.ndarray
    valid_loss: np.ndarray
    last_epoch: np.ndarray
    epochs_run: int
    seconds: float
    batch_loss: np.ndarray


class Member(NamedTuple):
    """One member in training: weights and Adam's moments by name, and the number of steps, int64."""

    weights: dict[str, tf.Tensor]
    first_moment: dict[str, tf.Tensor]
    second_moment: dict[str, tf.Tensor]
    step: tf.Tensor


class EpochData(NamedTuple):
    """What a member trains on in an epoch.

    Attributes:
        x: [N, I] normalised inputs.
        y: [N, O] normalised targets.
        rows: [N] int32, the member's permutation of the rows.
        num_train: scalar int32; the first so many of `rows` train, the rest validate.
        batch_order: [batches] int32, which of the consecutive batches comes when.
        loss_scale: scalar, factor of the gradients.
    """

    x: tf.Tensor
    y: tf.Tensor
    rows: tf.Tensor
    num_train: tf.Tensor
    batch_order: tf.Tensor
    loss_scale: tf.Tensor


class MemberTrainer:
    """Trains one member for one epoch at a time, compiled once for any number of rows.

    Adam is TensorFlow's own fused kernel, with TensorFlow 1's constants. It works on variables; they are scratch space
    that is filled from the arguments and read back, so that an epoch is a function of its arguments; but one at a time.

    Args:
        widths: of the input, the hidden layers and the output.
        weight_normalization: whether the weights have a g.
        batch_size: rows of a batch; the last one of an epoch may have fewer.
        learning_rate: Adam's.
    """

    def __init__(self, widths: Sequence[int], weight_normalization: bool, batch_size: int, learning_rate: float):
        shapes = networks.weight_shapes(widths, weight_normalization)
        self._batch_size, self._learning_rate = batch_size, learning_rate
        self._scratch = [
            {name: tf.Variable(tf.zeros(shape), trainable=False) for name, shape in shapes.items()} for _ in range(3)
        ]
        nest = {name: tf.TensorSpec(shape, tf.float32) for name, shape in shapes.items()}
        member = Member(nest, dict(nest), dict(nest), tf.TensorSpec([], tf.int64))
        data = EpochData(
            tf.TensorSpec([None, widths[0]], tf.float32),
            tf.TensorSpec([None, widths[-1]], tf.float32),
            tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([], tf.int32),
            tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([], tf.float32),
        )
        self._epoch = tf.function(self._train, input_signature=[member, data], autograph=False)

    def epoch(self, member: Member, data: EpochData) -> tuple[Member, tf.Tensor, tf.Tensor]:
        """One epoch of one member.

        Args:
            member: before.
            data: what it trains on.

        Returns:
            The member afterwards, every batch's loss before its step [batches], and the validation loss afterwards.
        """
        weights, first, second, step, losses, valid_loss = self._epoch(member, data)
        return Member(weights, first, second, step), losses, valid_loss

    def tracing_count(self) -> int:
        """How often the epoch has been traced."""
        return self._epoch.experimental_get_tracing_count()

    def _train(self, member: Member, data: EpochData) -> tuple[Any, ...]:
        for variables, values in zip(self._scratch, member[:3], strict=True):
            for name, variable in variables.items():
                variable.assign(values[name])
        batches = tf.size(data.batch_order)
        losses = tf.TensorArray(tf.float32, batches, element_shape=[])

        def body(i: tf.Tensor, step: tf.Tensor, losses: tf.TensorArray) -> tuple[Any, ...]:
            begin = data.batch_order[i] * self._batch_size
            rows = data.rows[begin : tf.minimum(begin + self._batch_size, data.num_train)]
            loss = self._step(tf.gather(data.x, rows), tf.gather(data.y, rows), step + 1, data.loss_scale)
            return i + 1, step + 1, losses.write(i, loss)

        # One iteration at a time: every step reads what the one before it wrote.
        _, step, losses = tf.while_loop(
            lambda i, *_: i < batches, body, (tf.constant(0), member.step, losses), parallel_iterations=1
        )
        weights, first, second = (
            {name: variable.read_value() for name, variable in variables.items()} for variables in self._scratch
        )
        return weights, first, second, step, losses.stack(), _validation_loss(weights, data)

    def _step(self, x: tf.Tensor, y: tf.Tensor, step: tf.Tensor, loss_scale: tf.Tensor) -> tf.Tensor:
        """One Adam step of the scratch variables; returns the loss before it."""
        variables, first, second = self._scratch
        loss, gradients = networks.loss_and_gradients({name: v.read_value() for name, v in variables.items()}, x, y)
        power = tf.cast(step, tf.float64)
        for name, variable in variables.items():
            tf.raw_ops.ResourceApplyAdam(
                var=variable.handle,
                m=first[name].handle,
                v=second[name].handle,
                beta1_power=tf.cast(tf.pow(tf.constant(_BETA1, tf.float64), power), tf.float32),
                beta2_power=tf.cast(tf.pow(tf.constant(_BETA2, tf.float64), power), tf.float32),
                lr=self._learning_rate,
                beta1=_BETA1,
                beta2=_BETA2,
                epsilon=_EPSILON,
                grad=gradients[name] * loss_scale,
            )
        return loss


class TrainerPool:
    """Trains members side by side, as many at once as there are cores.

    Args:
        num_members: trained at once at most.
        arguments: `MemberTrainer`'s.
    """

    def __init__(self, num_members: int, *arguments: Any):
        self.trainers = [MemberTrainer(*arguments) for _ in range(min(num_members, cores.usable()))]
        self._idle: queue.SimpleQueue[MemberTrainer] = queue.SimpleQueue()
        for trainer in self.trainers:
            self._idle.put(trainer)

    def epochs(self, members: Sequence[Member], data: Sequence[EpochData]) -> list[tuple[Member, tf.Tensor, tf.Tensor]]:
        """`MemberTrainer.epoch` of every member on its data."""

        def epoch(member: Member, data: EpochData) -> tuple[Member, tf.Tensor, tf.Tensor]:
            trainer = self._idle.get()
            try:
                return trainer.epoch(member, data)
            finally:
                self._idle.put(trainer)

        # TensorFlow works outside of the interpreter's lock.
        with ThreadPoolExecutor(max_workers=len(self.trainers)) as threads:
            return list(threads.map(epoch, members, data))


def _validation_loss(weights: dict[str, tf.Tensor], data: EpochData) -> tf.Tensor:
    """Mean squared error over the validation rows, a thousand at a time."""
    layers = networks.effective_layers(weights)
    N = tf.size(data.rows)

    def body(begin: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        rows = data.rows[begin : begin + _VALIDATION_ROWS]
        error = networks.predict(layers, tf.gather(data.x, rows)) - tf.gather(data.y, rows)
        return begin + _VALIDATION_ROWS, total + tf.cast(tf.reduce_sum(tf.square(error)), tf.float64)

    start = (data.num_train, tf.constant(0.0, tf.float64))
    total = tf.while_loop(lambda begin, _: begin < N, body, start, parallel_iterations=1)[1]
    entries = tf.cast((N - data.num_train) * data.y.shape[1], tf.float64)
    return tf.cast(total / entries, tf.float32)
