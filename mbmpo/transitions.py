"""The data set of the dynamics models: transitions of real paths, first in, first out (MB-MPO specification, 1.2 (3)).

Shapes: `N` buffer rows, `M` tasks, `S` steps per task, `O` observation, `A` action.
"""

from typing import NamedTuple

import numpy as np

from metarl.experiment.errors import UserError
from metarl.sampling.steps import FINAL_OBSERVATION, Batch, Steps


class Transitions(NamedTuple):
    """What the models learn from, oldest first.

    Attributes:
        observation: [N, O] float32.
        action: [N, A] float32, raw outputs of the policy: unclipped, in normalised units.
        next_observation: [N, O] float32.
        time: [N] int32, index of the step in its path, from 0.
    """

    observation: np.ndarray
    action: np.ndarray
    next_observation: np.ndarray
    time: np.ndarray


def empty(observation_dim: int, action_dim: int) -> Transitions:
    """A buffer without rows."""
    observations = np.zeros((0, observation_dim), np.float32)
    return Transitions(observations, np.zeros((0, action_dim), np.float32), observations.copy(), np.zeros(0, np.int32))


def from_steps(
    steps: Steps | Batch, store_last: bool = False, final_observation: np.ndarray | None = None
) -> Transitions:
    """The transitions of sampled paths: task by task, in a task path by path.

    The last step of a path is dropped, because what is observed after it is usually not recorded, so that a transition
    into a terminal state is never learned from (O-7).

    Args:
        steps: [M, S, ...], or the batch that holds them. The steps of a path must follow each other along S.
        store_last: keep the last steps too.
        final_observation: [M, S, O], the observation after each step, read at last steps only; default: the entry
            FINAL_OBSERVATION of the batch's info.

    Raises:
        UserError: `store_last` without the observations that it needs.
    """
    if isinstance(steps, Batch):
        if final_observation is None:
            final_observation = steps.info.get(FINAL_OBSERVATION)
        steps = steps.steps
    valid, last = np.asarray(steps.valid), np.asarray(steps.last)
    observation = np.asarray(steps.observation, np.float32)
    following = np.roll(observation, -1, axis=1)
    if store_last:
        if final_observation is None:
            raise UserError(
                "store_last_transition needs a sampler that records the observation after a path's last step"
            )
        following = np.where(last[..., None], np.asarray(final_observation, np.float32), following)
    kept = valid if store_last else valid & ~last
    return Transitions(
        observation[kept],
        np.asarray(steps.action, np.float32)[kept],
        following[kept],
        np.asarray(steps.time, np.int32)[kept],
    )


def append(buffer: Transitions, new: Transitions, capacity: int | None) -> Transitions:
    """The newest `capacity` rows of `buffer` followed by `new`; all of them if `capacity` is None."""
    return Transitions(*(_newest(np.concatenate(pair), capacity) for pair in zip(buffer, new, strict=True)))


def _newest(rows: np.ndarray, capacity: int | None) -> np.ndarray:
    # A copy, so that dropped rows do not stay in memory behind a view.
    return rows if capacity is None or len(rows) <= capacity else rows[len(rows) - capacity :].copy()
