"""How well the models predict: many steps ahead from real starts, and one step ahead over the buffer.

Errors of different dimensions are made comparable by division: those of one step by the standard deviation of the
change in the buffer, so that 1 is as bad as always predicting the mean change, and those of many steps by the standard
deviation of the observation there. "The mean" of many steps is the mean over the models' own trajectories.

Shapes: `n` rollouts, `H` predicted steps, `E` models, `O` observation, `A` action, `N` transitions, `b` bins.
"""

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from mbmpo.dynamics import DynamicsEnsemble
from mbmpo.transitions import Transitions
from metarl.compiled import Compiled
from metarl.sampling.steps import Batch

_BINS = 20
_ROWS_AT_ONCE = 2000
# Far beyond any observation; keeps a diverging model's numbers finite, so that they can be averaged.
_LIMIT = 1e6
HISTOGRAM_EDGES = np.logspace(-5.0, 3.0, 81)
"""Edges of the histogram of absolute one-step errors, in standard deviations of the change."""


class RealRollouts(NamedTuple):
    """The first H steps of real episodes.

    Attributes:
        observation: [n, H + 1, O] float32, zero after the last one of an episode that ended early.
        action: [n, H, A] float32.
        valid: [n, H] bool, whether `observation` t + 1 was seen.
    """

    observation: np.ndarray
    action: np.ndarray
    valid: np.ndarray


class OpenLoop(NamedTuple):
    """Predictions that only know the first observation and the actions.

    Attributes:
        real: what happened.
        predicted: [n, H + 1, E, O] float32; step 0 is the real start.
        mean: [n, H + 1, O] over the models.
        spread: [n, H + 1, O] standard deviation over the models.
        rmse: [H, E + 1, O] root-mean-square error over the rollouts that last so long, after 1 .. H steps, of every
            model and, last, of the mean; NaN where no rollout lasts so long.
        mean_spread: [H, O] root-mean-square `spread` over the same rollouts.
        rmse_no_change: [H, O] the error of predicting the start itself.
        num_rollouts: [H] rollouts that last so long.
        scale: [O] what errors are divided by.
    """

    real: RealRollouts
    predicted: np.ndarray
    mean: np.ndarray
    spread: np.ndarray
    rmse: np.ndarray
    mean_spread: np.ndarray
    rmse_no_change: np.ndarray
    num_rollouts: np.ndarray
    scale: np.ndarray


class OneStep(NamedTuple):
    """Errors of one-step predictions over transitions.

    Attributes:
        rmse: [E + 1, O] of every model and, last, of the mean prediction, in the units of the observation.
        scale: [O] standard deviation of the buffer's changes.
        spread: [O] root-mean-square standard deviation over the models.
        rmse_no_change: [O] the error of predicting no change.
        age: [b] transitions collected since, mean of each bin.
        rmse_by_age: [b, E + 1] in units of `scale`, over rows and dimensions.
        change: [b] root-mean-square change that the mean predicts, in units of `scale`, mean of each bin.
        rmse_by_change: [b, E + 1] in units of `scale`.
        spread_by_change: [b] in units of `scale`.
        histogram: [len(HISTOGRAM_EDGES) - 1, E + 1] shares of absolute errors in units of `scale`, all dimensions; the
            outer bins hold what lies beyond.
        num_rows: N.
    """

    rmse: np.ndarray
    scale: np.ndarray
    spread: np.ndarray
    rmse_no_change: np.ndarray
    age: np.ndarray
    rmse_by_age: np.ndarray
    change: np.ndarray
    rmse_by_change: np.ndarray
    spread_by_change: np.ndarray
    histogram: np.ndarray
    num_rows: int


def first_episodes(batch: Batch, horizon: int) -> RealRollouts:
    """The first episode of every row of a batch, cut after `horizon` predicted steps.

    Args:
        batch: rows [n, S, ...] of one copy each; its first episode is then the one that begins at step 0.
        horizon: H.
    """
    episodes, steps = batch.episodes, batch.steps
    n, H = len(steps.valid), horizon
    first = episodes.start == 0
    length = np.zeros(n, np.int64)
    length[episodes.task[first]] = episodes.length[first]
    observation = np.zeros((n, H + 1, steps.observation.shape[-1]), np.float32)
    action = np.zeros((n, H, steps.action.shape[-1]), np.float32)
    for row in range(n):
        seen = min(length[row], H + 1)
        observation[row, :seen] = steps.observation[row, :seen]
        action[row, : min(seen, H)] = steps.action[row, : min(seen, H)]
    return RealRollouts(observation, action, np.arange(H) < length[:, np.newaxis] - 1)


def transitions_of(rollouts: RealRollouts) -> Transitions:
    """The rollouts' transitions, rollout by rollout."""
    valid = rollouts.valid
    time = np.broadcast_to(np.arange(valid.shape[1], dtype=np.int32), valid.shape)
    return Transitions(
        rollouts.observation[:, :-1][valid], rollouts.action[valid], rollouts.observation[:, 1:][valid], time[valid]
    )


def open_loop(ensemble: DynamicsEnsemble, effective: Any, rollouts: RealRollouts, scale: np.ndarray) -> OpenLoop:
    """Predicts every rollout from its start and its real actions, with each model by itself.

    Args:
        ensemble: the models.
        effective: of the ensemble.
        rollouts: real ones.
        scale: [O], what errors are to be divided by where they are compared; see `spread_of`.
    """
    H = rollouts.action.shape[1]
    E = ensemble.num_models

    def unroll(effective: Any, start: tf.Tensor, actions: tf.Tensor) -> tf.Tensor:
        def step(t: tf.Tensor, observation: tf.Tensor, path: tf.TensorArray) -> tuple[Any, ...]:
            action = tf.repeat(actions[tf.newaxis, t], E, axis=0)
            following = ensemble.predict_blocks(effective, observation, action)
            following = tf.clip_by_value(tf.where(tf.math.is_nan(following), _LIMIT, following), -_LIMIT, _LIMIT)
            return t + 1, following, path.write(t, following)

        first = tf.repeat(start[tf.newaxis], E, axis=0)
        path = tf.TensorArray(tf.float32, H, element_shape=first.shape)
        _, _, path = tf.while_loop(lambda t, *_: t < H, step, (tf.constant(0), first, path))
        return path.stack()

    found = Compiled(unroll)(effective, rollouts.observation[:, 0], rollouts.action.transpose(1, 0, 2)).numpy()
    start = np.repeat(rollouts.observation[:, :1, np.newaxis], E, axis=2)
    predicted = np.concatenate([start, found.transpose(2, 0, 1, 3)], axis=1)
    exact = predicted.astype(np.float64)
    mean, spread = exact.mean(axis=2), exact.std(axis=2)
    real = rollouts.observation.astype(np.float64)
    candidates = np.concatenate([exact, mean[:, :, np.newaxis]], axis=2)[:, 1:]
    return OpenLoop(
        rollouts,
        predicted,
        mean,
        spread,
        _rms(candidates - real[:, 1:, np.newaxis], rollouts.valid),
        _rms(spread[:, 1:], rollouts.valid),
        _rms(real[:, 1:] - real[:, :1], rollouts.valid),
        rollouts.valid.sum(axis=0),
        scale,
    )


def one_step(
    ensemble: DynamicsEnsemble,
    effective: Any,
    transitions: Transitions,
    scale: np.ndarray,
    rows_at_once: int = _ROWS_AT_ONCE,
) -> OneStep:
    """Errors of one-step predictions of all rows, oldest first.

    Args:
        ensemble: the models.
        effective: of the ensemble.
        transitions: N rows, at least one.
        scale: [O], what errors are divided by where they are compared; see `spread_of`.
        rows_at_once: rows predicted at a time.
    """
    N, width = transitions.observation.shape
    E = ensemble.num_models
    squares, spreads, changes = np.zeros((E + 1, width)), np.zeros(width), np.zeros(width)
    by_row, change, spread_by_row = np.zeros((N, E + 1)), np.zeros(N), np.zeros(N)
    counts = np.zeros((len(HISTOGRAM_EDGES) - 1, E + 1))
    predict = Compiled(lambda effective, o, a: ensemble.predict_all(effective, o, a))
    for begin in range(0, N, rows_at_once):
        part = slice(begin, begin + rows_at_once)
        observation, action = transitions.observation[part], transitions.action[part]
        members = predict(effective, observation, action).numpy().astype(np.float64).transpose(0, 2, 1)
        members = np.clip(np.nan_to_num(members, nan=_LIMIT), -_LIMIT, _LIMIT)
        mean, spread = members.mean(axis=1), members.std(axis=1)
        following = transitions.next_observation[part].astype(np.float64)[:, np.newaxis]
        error = np.concatenate([members, mean[:, np.newaxis]], axis=1) - following
        squares += np.square(error).sum(axis=0)
        spreads += np.square(spread).sum(axis=0)
        changes += np.square(following[:, 0] - observation).sum(axis=0)
        relative = np.abs(error) / scale
        by_row[part] = np.square(relative).mean(axis=-1)
        change[part] = np.sqrt(np.square((mean - observation) / scale).mean(axis=-1))
        spread_by_row[part] = np.square(spread / scale).mean(axis=-1)
        inside = np.clip(relative, HISTOGRAM_EDGES[0], HISTOGRAM_EDGES[-1])
        for k in range(E + 1):
            counts[:, k] += np.histogram(inside[:, k], HISTOGRAM_EDGES)[0]
    by_age = _bins(np.arange(N))
    by_change = _bins(np.argsort(change, kind="stable"))
    return OneStep(
        np.sqrt(squares / N),
        scale,
        np.sqrt(spreads / N),
        np.sqrt(changes / N),
        np.array([N - 1 - rows.mean() for rows in by_age]),
        np.sqrt(np.stack([by_row[rows].mean(axis=0) for rows in by_age])),
        np.array([change[rows].mean() for rows in by_change]),
        np.sqrt(np.stack([by_row[rows].mean(axis=0) for rows in by_change])),
        np.sqrt(np.array([spread_by_row[rows].mean() for rows in by_change])),
        counts / counts.sum(axis=0),
        N,
    )


def spread_of(values: np.ndarray) -> np.ndarray:
    """Standard deviation of every column of [N, O], with 1 for columns that do not vary."""
    std = np.asarray(values, np.float64).std(axis=0)
    return np.where(std > 1e-8, std, 1.0)


def change_scale(buffer: Transitions) -> np.ndarray:
    """Standard deviation of the changes in a buffer, [O]."""
    return spread_of(buffer.next_observation.astype(np.float64) - buffer.observation)


def summary(loop: OpenLoop, buffer: OneStep, fresh: OneStep) -> list[dict[str, Any]]:
    """The main numbers as rows of a table; errors relative to the scale, root-mean-square over dimensions.

    Rows: one step over the buffer, one step over the fresh rollouts, and some numbers of steps of the open loop.
    """
    rows = [
        _row(f"one step, {name}", 1, found.num_rows, found.scale, found.rmse, found.spread, found.rmse_no_change)
        for name, found in (("buffer", buffer), ("fresh rollouts", fresh))
    ]
    for step in _told_steps(loop.num_rollouts):
        found = (values[step - 1] for values in (loop.rmse, loop.mean_spread, loop.rmse_no_change))
        rows.append(_row("open loop", step, int(loop.num_rollouts[step - 1]), loop.scale, *found))
    return rows


def relative(errors: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Root-mean-square over dimensions of errors [..., O] divided by the scale [O]."""
    return np.sqrt(np.square(errors / scale).mean(axis=-1))


def _row(
    what: str, steps: int, rows: int, scale: np.ndarray, rmse: np.ndarray, spread: np.ndarray, no_change: np.ndarray
) -> dict[str, Any]:
    each = relative(rmse, scale)
    return {
        "what": what,
        "steps": steps,
        "rows": rows,
        "error_of_mean": float(each[-1]),
        "best_model": float(each[:-1].min()),
        "worst_model": float(each[:-1].max()),
        "spread_of_models": float(relative(spread, scale)),
        "error_of_no_change": float(relative(no_change, scale)),
    }


def _told_steps(count: np.ndarray) -> list[int]:
    """1, 2, 5, 10, 20, 50, ... and the last step that a rollout reached."""
    longest = int(np.count_nonzero(count))
    told = [factor * 10**power for power in range(6) for factor in (1, 2, 5)]
    return [step for step in told if step < longest] + ([longest] if longest else [])


def _rms(values: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Root-mean-square over the valid rollouts: [n, H, ...] with [n, H] -> [H, ...], NaN where there are none."""
    weights = valid.reshape(valid.shape + (1,) * (values.ndim - 2))
    count = weights.sum(axis=0)
    total = (np.square(values) * weights).sum(axis=0)
    return np.sqrt(np.where(count > 0, total / np.maximum(count, 1), np.nan))


def _bins(order: np.ndarray) -> list[np.ndarray]:
    """The rows in at most 20 groups of nearly equal number, in the order given."""
    return [rows for rows in np.array_split(order, _BINS) if len(rows)]
