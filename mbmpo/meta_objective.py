"""The compiled evaluations of a meta-update: what a shard answers with while its data stay where they are.

Shapes: `M` tasks of the shard, `S` steps per task, `K` inner steps.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from mbmpo.objectives import (
    MetaData,
    Objective,
    Penalties,
    TaskResult,
    adapt,
    per_task,
    split_parameters,
    task_gradients,
    with_trainable_rates,
)
from mbmpo.policies import GaussianMLPPolicy, Weights
from mbmpo.surrogates import Phase
from metarl.compiled import Compiled
from metarl.experiment.errors import UserError, did_you_mean
from metarl.seeding import keyed_generator

WHATS = ("loss_gradient", "kl_gradient", "kl_difference", "kl_product", "scalars", "inner_gradient")
# More rows than this are worked on in groups of tasks, in functions that XLA compiles once for all groups: their
# activations stay in a core's cache, elementwise work is fused, and groups run side by side.
_ROWS_AT_ONCE = 4096
_ROWS_OF_GROUP = 1024

Point = tuple[Weights, Weights]  # the policy's weights and the step sizes


class RandomKey(NamedTuple):
    """Names the random numbers of one meta-update: (seed, iteration, phase), see `metarl.seeding`."""

    seed: int
    iteration: int
    phase: str


class MiniBatch(NamedTuple):
    """A part of every task's rows (section 4.2): each phase and task is permuted by itself, anew every epoch.

    Attributes:
        key: of the meta-update.
        epoch: 0-based.
        position: 0-based, which mini-batch of the epoch.
        size: rows of every phase and task.
        num_batches: mini-batches per epoch; bounds `size` by S // num_batches.
    """

    key: RandomKey
    epoch: int
    position: int
    size: int
    num_batches: int


class Argument(NamedTuple):
    """What an evaluation needs besides theta.

    Attributes:
        vector: for "kl_product": what the Hessian is multiplied with; for "kl_difference": the step; a nest like theta.
        penalties: PPO's coefficients of all tasks of the meta-batch, [M, K] and [M].
        minibatch: only these rows; None for all.
    """

    vector: Any = None
    penalties: Penalties | None = None
    minibatch: MiniBatch | None = None

    def part(self, start: int, stop: int) -> "Argument":
        """The argument for a shard that holds the tasks [start, stop)."""
        if self.penalties is None:
            return self
        return self._replace(penalties=Penalties(*(coefficients[start:stop] for coefficients in self.penalties)))


class Evaluation(NamedTuple):
    """A shard's answer.

    Attributes:
        gradient: sum over tasks (of the losses' gradients) or over rows (of the KLs'), a nest like theta; None if there
            is none.
        terms: per-task numbers by name, see `mbmpo.objectives.task_gradients`.
    """

    gradient: Any
    terms: dict[str, np.ndarray]


def joined_terms(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The shards' per-task numbers together, in task order."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


class MetaObjective:
    """The evaluations of one objective, each traced once per experiment.

    Args:
        policy: the policy.
        objective: which losses.
        inner_lr: alpha, unless theta holds it.
        rows_at_once: tasks are worked on together, without XLA, as long as they have no more rows than this.
    """

    def __init__(
        self, policy: GaussianMLPPolicy, objective: Objective, inner_lr: float, rows_at_once: int = _ROWS_AT_ONCE
    ):
        self.policy, self.objective, self.inner_lr = policy, objective, inner_lr
        self._rows_at_once = rows_at_once
        # Without adaptation the inner loss is the objective of a plain policy gradient.
        self._initial = Objective(outer=objective.inner)
        self._compiled = {what: Compiled(self._function(what)) for what in WHATS}
        self._adapt = Compiled(self._adapt_from)
        self._positions: tuple[Any, np.ndarray] | None = None

    def initial_parameters(self, weights: Mapping[str, tf.Tensor]) -> Weights:
        """Theta for these policy weights: with the step sizes if they are trained."""
        if self.objective.trainable_step_sizes:
            return with_trainable_rates(weights, self.inner_lr)
        return dict(weights)

    def policy_weights(self, theta: Mapping[str, tf.Tensor]) -> Weights:
        """The policy's part of theta."""
        return split_parameters(theta, self.inner_lr)[0]

    def adapt(self, theta: Mapping[str, tf.Tensor], weights: Mapping[str, tf.Tensor] | None, phase: Phase) -> Weights:
        """One inner step with theta's step sizes, compiled.

        Args:
            theta: meta-parameters.
            weights: where to step from, [M, ...]; None for theta itself.
            phase: the tasks' data.

        Returns:
            Adapted weights by name, [M, ...].
        """
        return self._adapt(dict(theta), weights, phase)

    def evaluate(
        self,
        what: str,
        theta: Mapping[str, tf.Tensor],
        data: MetaData,
        argument: Argument | None = None,
        task_indices: Sequence[int] | None = None,
    ) -> Evaluation:
        """One evaluation on a shard's data.

        Args:
            what: "loss_gradient"; "kl_gradient"; "kl_difference": that at theta + vector minus that at theta - vector;
                "kl_product": the exact Hessian of the summed KL times a vector; "scalars": terms only;
                "inner_gradient": of the inner loss alone, without adaptation.
            theta: meta-parameters.
            data: the shard's tasks.
            argument: see `Argument`; its penalties are those of the shard's tasks.
            task_indices: [M], the tasks' indices in the meta-batch; they key mini-batches. Default 0..M-1.

        Raises:
            UserError: unknown `what`.
        """
        if what not in self._compiled:
            raise UserError(f"there is no evaluation {what!r}{did_you_mean(what, WHATS)}")
        argument = argument or Argument()
        if what == "inner_gradient":
            data = MetaData((), data.pre[0] if data.pre else data.post)
        rows = None
        if argument.minibatch is not None:
            rows = self._rows(data, argument.minibatch, task_indices)
        penalties = argument.penalties
        if penalties is not None:
            penalties = Penalties(*(np.asarray(x, np.float32) for x in penalties))
        data = MetaData(tuple(data.pre), data.post)
        gradient, terms = self._compiled[what](dict(theta), data, argument.vector, penalties, rows)
        return Evaluation(gradient, {name: value.numpy() for name, value in terms.items()})

    def tracing_counts(self) -> dict[str, int]:
        """How often each evaluation has been traced."""
        return {what: compiled.experimental_get_tracing_count() for what, compiled in self._compiled.items()}

    def _adapt_from(self, theta: Weights, weights: Weights | None, phase: Phase) -> Weights:
        start, rates = split_parameters(theta, self.inner_lr)
        start = start if weights is None else weights
        own = per_task(start, rates, phase.advantage.shape[0])

        def one(rates: Weights, data: MetaData, own: Weights) -> Weights:
            return adapt(self.policy, own, rates, data.post, self.objective.inner)

        return self._over_tasks(one, [(rates,)], (MetaData((), phase), own))[0]

    def _function(self, what: str) -> Callable[..., Any]:
        objective = self._initial if what == "inner_gradient" else self.objective
        kind = {"loss_gradient": "loss", "inner_gradient": "loss", "scalars": "terms"}.get(what, "kl")

        def evaluate(
            theta: Weights, data: MetaData, vector: Any, penalties: Penalties | None, rows: Any
        ) -> tuple[Any, dict[str, tf.Tensor]]:
            data = data if rows is None else _selected(data, *rows)
            num_tasks = data.post.advantage.shape[0]

            def one(point: Point, moved: Point | None, data: MetaData, penalties: Penalties | None) -> TaskResult:
                point = _repeated(point, data.post.advantage.shape[0])
                if moved is None:
                    return task_gradients(self.policy, objective, *point, data, penalties, kind)
                with tf.autodiff.ForwardAccumulator(point, _repeated(moved, data.post.advantage.shape[0])) as tangents:
                    result = task_gradients(self.policy, objective, *point, data, penalties, kind)
                product = {name: _jvp(tangents, value) for name, value in (result.gradient or {}).items()}
                return TaskResult(product, result.terms)

            point = split_parameters(theta, self.inner_lr)
            moved = None if vector is None else split_parameters(vector, 0.0)
            calls = [(point, moved)]
            if what == "kl_difference" and moved is not None:
                # Two rounds of one compiled function: if one round made both, their activations would share the cache.
                calls = [(_shifted(point, moved, sign), None) for sign in (1.0, -1.0)]
            # Outside of XLA the tangents' sums of three would become AddN, whose order depends on timing.
            result, *below = self._over_tasks(one, calls, (data, penalties), always_xla=what == "kl_product")
            for other in below:
                difference = {name: value - other.gradient[name] for name, value in result.gradient.items()}
                result = result._replace(gradient=difference)
            gradient = result.gradient
            if gradient is not None:
                if what == "inner_gradient" and self.objective.trainable_step_sizes:
                    gradient |= {
                        name: tf.zeros([num_tasks, *theta[name].shape]) for name in theta if name not in gradient
                    }
                gradient = {name: tf.reduce_sum(value, axis=0) for name, value in gradient.items()}
            return gradient, result.terms

        return evaluate

    def _over_tasks(
        self, function: Callable[..., Any], calls: Sequence[tuple[Any, ...]], own: Any, *, always_xla: bool = False
    ) -> list[Any]:
        """Applies a function to groups of tasks and joins the results.

        Args:
            function: of a call's arguments and the tasks' own; its result is a nest of [M, ...].
            calls: arguments that are the same for all tasks.
            own: arguments, nests of [M, ...].
            always_xla: even if there are few rows.

        Returns:
            A result for every call.
        """
        num_tasks, rows = own[0].post.advantage.shape
        if num_tasks * rows <= self._rows_at_once and not always_xla:
            return [function(*shared, *own) for shared in calls]
        fitting = max(1, _ROWS_OF_GROUP // rows)
        num_groups = num_tasks // max(size for size in range(1, fitting + 1) if num_tasks % size == 0)
        leaves = [[x] * num_groups if x is None else tf.split(x, num_groups) for x in tf.nest.flatten(own)]
        groups = [tf.nest.pack_sequence_as(own, group) for group in zip(*leaves, strict=True)]
        compiled = tf.function(function, autograph=False, jit_compile=True)
        return [tf.nest.map_structure(_joined, *[compiled(*shared, *group) for group in groups]) for shared in calls]

    def _rows(
        self, data: MetaData, batch: MiniBatch, task_indices: Sequence[int] | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Positions along S, [M, K + 1, capacity], and which of them count."""
        phases = [*data.pre, data.post]
        num_tasks = phases[0].valid.shape[0]
        indices = range(num_tasks) if task_indices is None else task_indices
        identity = (batch.key, batch.epoch, tuple(indices))
        if self._positions is None or self._positions[0] != identity:
            found = np.zeros((num_tasks, len(phases), phases[0].valid.shape[1]), np.int32)
            for k, phase in enumerate(phases):
                for task, index in enumerate(indices):
                    rows = np.flatnonzero(np.asarray(phase.valid[task]))
                    name = f"{batch.key.phase}/epoch_{batch.epoch}/phase_{k}"
                    rng = keyed_generator(batch.key.seed, batch.key.iteration, name, int(index))
                    found[task, k, : len(rows)] = rng.permutation(rows)
            self._positions = identity, found
        positions = self._positions[1]
        capacity = positions.shape[2] // batch.num_batches
        first = batch.position * batch.size
        taken = np.zeros((num_tasks, len(phases), capacity), np.int32)
        taken[:, :, : batch.size] = positions[:, :, first : first + batch.size]
        counting = np.broadcast_to(np.arange(capacity) < batch.size, taken.shape)
        return taken, np.ascontiguousarray(counting)


def _selected(data: MetaData, positions: tf.Tensor, counting: tf.Tensor) -> MetaData:
    """Those rows of every phase."""
    phases = []
    for k, phase in enumerate([*data.pre, data.post]):
        taken = Phase(*(tf.gather(x, positions[:, k], batch_dims=1) for x in phase))
        phases.append(taken._replace(valid=counting[:, k]))
    return MetaData(tuple(phases[:-1]), phases[-1])


def _shifted(point: Point, moved: Point, sign: float) -> Point:
    return tf.nest.map_structure(lambda x, y: x + sign * y, point, moved)


def _repeated(point: Point, num_tasks: int) -> Point:
    """Weights and step sizes with a leading M."""
    return tf.nest.map_structure(lambda x: tf.repeat(x[tf.newaxis], num_tasks, axis=0), point)


def _jvp(tangents: Any, value: tf.Tensor) -> tf.Tensor:
    found = tangents.jvp(value)
    return tf.zeros_like(value) if found is None else found


def _joined(*parts: tf.Tensor | None) -> tf.Tensor | None:
    return None if parts[0] is None else tf.concat(parts, axis=0)
