"""Imagined rollouts: policy, models, reward, termination and resets of all rows and steps in one compiled function.

MB-MPO specification, sections 5.2 (one model per task) and 5.3 (a random model for every row and step: ME-TRPO).

Shapes: `M` tasks (of the shard), `R` rows per task, `n` = M R, `H` imagined horizon, `T` ticks of the loop at most,
`S` = R T, `P` resets per row, `E` ensemble members, `O` observation, `A` action. A *tick* is one step of every row.
"""

import math
from typing import Any, NamedTuple, Protocol

import numpy as np
import tensorflow as tf

from mbmpo import imagination_resets as resets
from mbmpo.imagination_layout import Blocks, row_after_row
from mbmpo.transitions import Transitions
from metarl.compiled import Compiled
from metarl.experiment import checks
from metarl.experiment.errors import UserError
from metarl.sampling.steps import Steps
from metarl.simulation.imaginable import ImaginableFamily

_NAME = "Imagination"
_RANDOM_ROWS = 100


class ImaginationPolicy(Protocol):
    """What imagination asks of a policy."""

    def act(self, weights: Any, observation: tf.Tensor, standard_normal: tf.Tensor) -> tf.Tensor:
        """Returns mean, log-std and action [m, R, 3A] for [m, R, O] and [m, R, A]."""


class Dynamics(Protocol):
    """What imagination asks of an ensemble."""

    num_models: int

    def selected(self, effective: Any, models: np.ndarray) -> Any:
        """What these models, repetitions among them, predict blocks with."""

    def predict_blocks(self, effective: Any, observation: tf.Tensor, action: tf.Tensor) -> tf.Tensor:
        """Next observations [E, B, O] of block e by model e, for [E, B, O] and [E, B, A]."""

    def predict_random(self, effective: Any, observation: tf.Tensor, action: tf.Tensor, member: tf.Tensor) -> tf.Tensor:
        """Next observations [n, O] of each row by its `member` [n] int32."""


class Imagined(NamedTuple):
    """One phase of imagination.

    Attributes:
        steps: [M, S, ...] tensors, row after row; the episodes of a row follow each other, its unfinished tail and
            what the stop rule does not count are invalid and zero. `time` counts from 0 in every episode.
        mean_return: [M] undiscounted, over the finished episodes of each task; 0 for a task without any.
        num_episodes: [M] int32.
    """

    steps: Steps
    mean_return: tf.Tensor
    num_episodes: tf.Tensor


class _Noise(NamedTuple):
    """Random numbers of all ticks: of actions [T, M, R, A], resets [T, M, R, 2] and members [T, n]; None: not used."""

    action: tf.Tensor
    reset: tf.Tensor | None
    member: tf.Tensor | None


class _Record(NamedTuple):
    """What the loop writes down, [T, M, R, ...]; `time` and `last` only when rows can end at different ticks.

    All is float32, because TensorFlow logs a program's first transposition of another type as an error of oneDNN.
    """

    observation: Any
    output: Any
    reward: Any
    time: Any
    last: Any


class Imagination:
    """Imagines the rollouts of M tasks, B = M · `rollouts_per_task` · H steps or slightly more.

    With `member` "task", n = B // `real_horizon` rows are split into M equal blocks of rows for the tasks and E equal
    blocks for the models. With "random", n = clip(B / H, 1, 100), and every row draws a new model at every step.
    Rows that finish start again until the finished episodes hold B steps. Without early ends and with equal horizons,
    every row finishes once and S = rollouts_per_task · H.

    Attributes:
        rows_per_task: R.
        ticks: T.
        capacity: S.
        splits: whether no task's end depends on other tasks, so that they can be imagined at different places.
    """

    def __init__(
        self,
        policy: ImaginationPolicy,
        family: ImaginableFamily,
        ensemble: Dynamics,
        num_tasks: int,
        rollouts_per_task: int,
        horizon: int,
        real_horizon: int | None = None,
        *,
        clip_observation: float | None = 1000.0,
        member: str = "task",
        reset: str = "environment",
        inherit_time: bool = True,
        stop_rule: str = "global",
        resets_per_row: int = 4,
        requested_steps: int | None = None,
        first_task: int = 0,
        shard_size: int | None = None,
        first_row: int = 0,
        shard_rows: int | None = None,
        jit_compile: bool = True,
    ):
        """Checks the sizes; nothing is compiled before the first run.

        Args:
            policy: acts; its weights are given to `run`.
            family: gives rewards, terminations and resets.
            ensemble: predicts; its effective weights are given to `run`.
            num_tasks: M of the whole meta-batch.
            rollouts_per_task: imagined rollouts asked for, per task.
            horizon: H, where imagined episodes are cut.
            real_horizon: decides the number of rows, as in the original (O-10); None: H.
            clip_observation: limit of predicted observations' entries; None: none (O-29).
            member: "task" or "random".
            reset: "environment": rows start where the family's resets put them. "buffer": a phase starts at
                observations drawn from the entire buffer, a row that finished starts again from a reset of the family
                with probability 0.1, else from one of the newest 10,000 buffered observations.
            inherit_time: rows reset from the buffer continue at the time index of the observation, so that they end
                after H minus this many steps, at least one; False: they start at 0 (the clean option of O-10).
            stop_rule: "global": until the finished steps of all tasks reach B, so that tasks can contribute unequally
                (O-23). "per_task": until each task has its share, steps beyond are not counted. "per_row": until each
                row has.
            resets_per_row: resets of the family drawn at a time for every row; when a row has used them up, the phase
                is imagined again with more, so that none is used twice.
            requested_steps: B, if it is not num_tasks · rollouts_per_task · horizon.
            first_task: index in the meta-batch of the first task imagined here.
            shard_size: tasks imagined here; None: all from `first_task` on.
            first_row: of every task, the first row imagined here; other rows are imagined elsewhere, with the same
                random numbers as if all were together.
            shard_rows: rows imagined here; None: all from `first_row` on.
            jit_compile: compile the loop with XLA.

        Raises:
            UserError: sizes that do not fit together, or unknown options.
        """
        self._policy, self._family, self._ensemble = policy, family, ensemble
        whole = checks.integer(f"{_NAME}.num_tasks", num_tasks, minimum=1)
        rollouts = checks.integer(f"{_NAME}.rollouts_per_task", rollouts_per_task, minimum=1)
        self.horizon = checks.integer(f"{_NAME}.horizon", horizon, minimum=1)
        self._limit = None
        if clip_observation is not None:
            self._limit = checks.real(f"{_NAME}.clip_observation", clip_observation, minimum=0.0)
        self._random_member = checks.choice(f"{_NAME}.member", member, ("task", "random")) == "random"
        self._from_buffer = checks.choice(f"{_NAME}.reset", reset, ("environment", "buffer")) == "buffer"
        self._stop_rule = checks.choice(f"{_NAME}.stop_rule", stop_rule, ("global", "per_task", "per_row"))
        self._inherit = self._from_buffer and checks.flag(f"{_NAME}.inherit_time", inherit_time)
        checks.integer(f"{_NAME}.resets_per_row", resets_per_row, minimum=1)
        asked = whole * rollouts * self.horizon
        if requested_steps is not None:
            asked = checks.integer(f"{_NAME}.requested_steps", requested_steps, minimum=1)
        if real_horizon is not None:
            checks.integer(f"{_NAME}.real_horizon", real_horizon, minimum=1)
        first = checks.integer(f"{_NAME}.first_task", first_task, minimum=0, maximum=whole - 1)
        size = whole - first if shard_size is None else shard_size
        self.num_tasks = checks.integer(f"{_NAME}.shard_size", size, minimum=1, maximum=whole - first)
        self.task_indices = range(first, first + size)
        total = self._count_rows(whole, asked, real_horizon or self.horizon)
        self._all_rows = total // whole
        self._first_row = checks.integer(f"{_NAME}.first_row", first_row, minimum=0, maximum=self._all_rows - 1)
        rows_left = self._all_rows - first_row
        self.rows_per_task = R = (
            rows_left
            if shard_rows is None
            else checks.integer(f"{_NAME}.shard_rows", shard_rows, minimum=1, maximum=rows_left)
        )

        sweeps = -(-asked // (total * self.horizon))
        self._lockstep = not family.can_terminate and not (self._inherit and sweeps > 1)
        self.splits = self._lockstep or self._stop_rule == ("per_row" if whole == 1 else "per_task")
        if (size < whole or self._all_rows > R) and not self.splits:
            raise UserError(
                f"imagined rollouts of {family.name} end at different times: stop_rule 'global' cannot be split, "
                "'per_task' can"
            )
        # Of all steps made, fewer than H per row belong to running episodes.
        self.ticks = sweeps * self.horizon if self._lockstep else -(-asked // total) + self.horizon - 1
        self._restarts = not (self._lockstep and sweeps == 1)
        need_is_known = self._lockstep and not self._from_buffer
        need = max(sweeps - 1, 0) if need_is_known else resets_per_row
        self._resets_per_row = (need if family.reset_dim else 1) if self._restarts else 0
        self._may_need_more = self._restarts and not need_is_known and family.reset_dim > 0
        self._reset_blocks = 1  # results do not depend on it, because no row uses a reset twice
        self._quota = -(-asked // {"global": 1, "per_task": whole, "per_row": total}[self._stop_rule])
        self.capacity = R * self.ticks
        self._blocks = None if self._random_member else Blocks(self.task_indices, whole, ensemble.num_models)
        self._roll = tf.function(self._roll_out, jit_compile=jit_compile, autograph=False)
        self._compiled = Compiled(self._imagine)

    @property
    def _rows(self) -> slice:
        """Of a task's rows, those that are imagined here."""
        return slice(self._first_row, self._first_row + self.rows_per_task)

    def _count_rows(self, tasks: int, asked: int, real_horizon: int) -> int:
        """Returns n of the whole meta-batch."""
        if self._random_member:
            rows = min(max(asked // self.horizon, 1), _RANDOM_ROWS)
            if rows % tasks:
                raise UserError(f"{rows} imagined rows cannot be shared equally among {tasks} tasks")
            return rows
        models = self._ensemble.num_models
        if tasks % models:
            raise UserError(
                f"meta_batch_size must be a multiple of the number of models, got {tasks} tasks and {models} models; "
                f"the next one is {models * (tasks // models + 1)}"
            )
        rows = asked // real_horizon
        if rows == 0 or rows % tasks:
            raise UserError(
                f"{asked} imagined steps / real horizon {real_horizon} = {rows} imagined rows, which cannot be shared "
                f"equally among {tasks} tasks"
            )
        return rows

    def run(
        self,
        weights: Any,
        effective: Any,
        *,
        seed: int,
        iteration: int,
        phase: str,
        buffer: Transitions | None = None,
    ) -> Imagined:
        """Imagines one phase.

        Args:
            weights: of the policy, shared or with a leading M.
            effective: what the ensemble predicts with.
            seed: of the experiment.
            iteration: 0-based.
            phase: names the random numbers; different in every phase of the iteration.
            buffer: for `reset` "buffer"; without any, rows start from resets of the family.

        Returns:
            The phase, float32. What is not finite is left for the caller to see.
        """
        key: dict[str, Any] = {"seed": seed, "iteration": iteration, "phase": phase, "task_indices": self.task_indices}
        use_buffer = self._from_buffer and buffer is not None and len(buffer.observation) > 0
        start = None
        if use_buffer:
            assert buffer is not None
            start = resets.buffer_starts(buffer, self._all_rows, **key)[:, self._rows]
        recent = None
        if self._from_buffer and self._restarts:
            recent = resets.recent_observations(buffer, self._family.observation_dim)
        seeds = resets.noise_seeds(seed, iteration, phase, self.task_indices, streams=3)
        while True:
            each = self._resets_per_row
            counts = [each + (start is None), *[each] * (self._reset_blocks - 1)]
            pool = None
            if any(counts):
                pool = resets.family_resets(self._family, self._all_rows, counts, **key)[:, self._rows]
            first = start
            if first is None:
                assert pool is not None
                first, pool = pool[:, :, 0], pool[:, :, 1:]
            pool = pool if self._restarts else None
            imagined, used = self._compiled(weights, effective, first, pool, recent, seeds)
            if pool is None or not self._may_need_more or int(used) <= pool.shape[2]:
                result: Imagined = imagined
                return result
            self._reset_blocks = 2 ** math.ceil(math.log2(int(used) / each))

    @property
    def tracing_count(self) -> int:
        """How often the whole phase has been traced."""
        return self._compiled.experimental_get_tracing_count()

    def _imagine(
        self,
        weights: Any,
        effective: Any,
        start: tf.Tensor,
        pool: tf.Tensor | None,
        recent: resets.RecentObservations | None,
        seeds: tf.Tensor,
    ) -> tuple[Imagined, tf.Tensor]:
        """The phase, and the most resets of the family that a row used."""
        # Random numbers and the final layout stay outside of XLA: its generator is another one, and its transpositions
        # use one core.
        if self._blocks is not None and self._blocks.models is not None:
            effective = self._ensemble.selected(effective, self._blocks.models)
        record, used = self._roll(weights, effective, start, pool, recent, self._draw(seeds))
        return self._lay_out(record), used

    def _draw(self, seeds: tf.Tensor) -> _Noise:
        """All random numbers of a phase from the tasks' seeds [M, 3, 2]."""
        T, R, A = self.ticks, self._all_rows, self._family.action_dim
        tasks, here = tf.unstack(seeds), self._rows
        action = tf.stack([tf.random.stateless_normal([T, R, A], task[0])[:, here] for task in tasks], axis=1)
        reset = member = None
        if self._from_buffer and self._restarts:
            reset = tf.stack([tf.random.stateless_uniform([T, R, 2], task[1])[:, here] for task in tasks], axis=1)
        if self._random_member:
            models = self._ensemble.num_models
            drawn = [tf.random.stateless_uniform([T, R], task[2], 0, models, tf.int32)[:, here] for task in tasks]
            member = tf.concat(drawn, axis=1)
        return _Noise(action, reset, member)

    def _roll_out(
        self,
        weights: Any,
        effective: Any,
        start: tf.Tensor,
        pool: tf.Tensor | None,
        recent: resets.RecentObservations | None,
        noise: _Noise,
    ) -> tuple[_Record, tf.Tensor]:
        """The loop over ticks; start [M, R, O], pool [M, R, P, O]; also returns the most resets that a row used."""
        M, R, H, A = self.num_tasks, self.rows_per_task, self.horizon, self._family.action_dim
        zeros = tf.zeros([M, R], tf.int32)
        # Steps that the stop rule counts: of all tasks, of every task or of every row.
        counted_by: dict[str, list[int]] = {"global": [], "per_task": [M, 1], "per_row": [M, R]}
        of = counted_by[self._stop_rule]
        counters = (zeros, zeros, zeros, tf.zeros(of, tf.int32)) if self._restarts else ()

        def tick(t: tf.Tensor, o: tf.Tensor, counters: tuple[tf.Tensor, ...], record: _Record) -> tuple[Any, ...]:
            output = self._policy.act(weights, o, noise.action[t])
            action = output[..., 2 * A :]
            following = self._predict(effective, o, action, None if noise.member is None else noise.member[t])
            if self._limit is not None:
                following = tf.clip_by_value(following, -self._limit, self._limit)
            record = record._replace(
                observation=record.observation.write(t, o),
                output=record.output.write(t, output),
                reward=record.reward.write(t, self._family.reward(o, action, following)),
            )
            if not self._restarts:
                return t + 1, following, counters, record
            # Steps made in the episode, time index it began at, resets of the family used, and finished steps.
            made, begin, used, finished = counters
            ends = made + 1 + begin >= H
            if self._family.can_terminate:
                ends |= self._family.termination(following)
            counted = ends & (finished < self._quota) if of else ends
            record = record._replace(
                time=record.time.write(t, tf.cast(made, tf.float32)),
                last=record.last.write(t, tf.cast(counted, tf.float32)),
            )
            steps = tf.where(counted, made + 1, 0)
            if self._stop_rule != "per_row":
                steps = tf.reduce_sum(steps, axis=1 if of else None, keepdims=bool(of))
            finished += steps
            assert pool is not None
            fresh = tf.gather(pool, used % pool.shape[2], axis=2, batch_dims=2)
            from_family, begin_fresh = ends, zeros
            if recent is not None:
                assert noise.reset is not None
                fresh, begin_fresh, from_family = resets.draw_recent(recent, noise.reset[t], fresh, ends)
            used += tf.cast(from_family, tf.int32)
            begin = tf.where(ends, begin_fresh if self._inherit else zeros, begin)
            following = tf.where(ends[..., tf.newaxis], fresh, following)
            return t + 1, following, (tf.where(ends, zeros, made + 1), begin, used, finished), record

        def unfinished(t: tf.Tensor, o: tf.Tensor, counters: tuple[tf.Tensor, ...], record: _Record) -> tf.Tensor:
            del o, record
            if self._lockstep:
                return t < self.ticks
            return (t < self.ticks) & tf.reduce_any(counters[3] < self._quota)

        def array(*width: int) -> tf.TensorArray:
            return tf.TensorArray(tf.float32, self.ticks, element_shape=[M, R, *width])

        record = _Record(array(start.shape[-1]), array(3 * A), array(), (), ())
        if self._restarts:
            record = record._replace(time=array(), last=array())
        _, _, counters, record = tf.while_loop(unfinished, tick, (tf.constant(0), start, counters, record))
        used = tf.reduce_max(counters[2]) if counters else tf.constant(0)
        return _Record(*(() if field == () else field.stack() for field in record)), used

    def _predict(self, effective: Any, o: tf.Tensor, action: tf.Tensor, member: tf.Tensor | None) -> tf.Tensor:
        flat_o, flat_a = (tf.reshape(x, [-1, x.shape[-1]]) for x in (o, action))
        if self._blocks is None:
            following = self._ensemble.predict_random(effective, flat_o, flat_a, member)
        else:
            blocks = self._ensemble.predict_blocks(effective, self._blocks.split(flat_o), self._blocks.split(flat_a))
            following = self._blocks.join(blocks)
        return tf.reshape(following, o.shape)

    def _lay_out(self, record: _Record) -> Imagined:
        """From [T, M, R, ...] to steps [M, S, ...] and statistics."""
        M, A = self.num_tasks, self._family.action_dim
        observation, output = (row_after_row(x) for x in (record.observation, record.output))
        reward = row_after_row(record.reward)
        if self._restarts:
            time = tf.cast(row_after_row(record.time), tf.int32)
            last = row_after_row(record.last) > 0.5
            by_row = tf.reshape(last, [M, self.rows_per_task, self.ticks])
            still = tf.cumsum(tf.cast(by_row, tf.int32), axis=-1, reverse=True) > 0
            valid = tf.reshape(still, last.shape)
            observation, output = (tf.where(valid[..., tf.newaxis], x, 0.0) for x in (observation, output))
            reward, time = tf.where(valid, reward, 0.0), tf.where(valid, time, 0)
        else:
            time = tf.tile(tf.range(self.ticks)[tf.newaxis], [M, self.rows_per_task])
            last, valid = tf.equal(time, self.ticks - 1), tf.ones_like(time, tf.bool)
        episodes = tf.reduce_sum(tf.cast(last, tf.int32), axis=1)
        mean_return = tf.math.divide_no_nan(tf.reduce_sum(reward, axis=1), tf.cast(episodes, tf.float32))
        steps = Steps(observation, output[..., 2 * A :], reward, output[..., : 2 * A], time, valid, last)
        return Imagined(steps, mean_return, episodes)
