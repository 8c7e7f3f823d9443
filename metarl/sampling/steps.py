"""`Steps`, the one currency between sampler, baseline, adaptation and meta-update.

Shapes: `M` tasks, `S` steps per task (a capacity, constant in an experiment), `O` observation, `A` action.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

FINAL_OBSERVATION = "final_observation"
"""Name in `Batch.info` of the observations after episodes' last steps: [M, S, O] float32, zero at all other steps."""


class Steps(NamedTuple):
    """Complete episodes of `M` tasks, laid end to end along `S` in order of completion, padded with zeros.

    The fields are NumPy arrays on the host and tensors inside compiled functions.

    Attributes:
        observation: [M, S, O] float32, what the policy saw.
        action: [M, S, A] float32, as sampled: unclipped, in normalised units.
        reward: [M, S] float32.
        logits: [M, S, 2A] float32, the distribution's parameters when the action was sampled: mean, then log_std.
        time: [M, S] int32, index of the step in its episode, from 0.
        valid: [M, S] bool, False on padding. A mean over steps is always a mean over the valid ones.
        last: [M, S] bool, last step of its episode.
    """

    observation: Any
    action: Any
    reward: Any
    logits: Any
    time: Any
    valid: Any
    last: Any


class Episodes(NamedTuple):
    """Statistics of the episodes in a batch of `Steps`; `n` episodes, task by task in order of completion.

    Attributes:
        task: [n] int, position of the episode's task in the batch.
        episode_return: [n] float64, undiscounted sum of rewards.
        length: [n] int.
        terminated: [n] bool, False where the horizon cut the episode.
        start: [n] int, index along S of the episode's first step.
        sums: name -> [n] float64: sum over the episode of each scalar entry of the family's info.
        final: name -> [n] float64: the same entries at the episode's last step.
    """

    task: np.ndarray
    episode_return: np.ndarray
    length: np.ndarray
    terminated: np.ndarray
    start: np.ndarray
    sums: dict[str, np.ndarray]
    final: dict[str, np.ndarray]


def joined(parts: Sequence[Episodes]) -> Episodes:
    """The episodes of several parts, one part after the other; all number their tasks in one way."""
    return Episodes(
        task=np.concatenate([part.task for part in parts]),
        episode_return=np.concatenate([part.episode_return for part in parts]),
        length=np.concatenate([part.length for part in parts]),
        terminated=np.concatenate([part.terminated for part in parts]),
        start=np.concatenate([part.start for part in parts]),
        sums={name: np.concatenate([part.sums[name] for part in parts]) for name in parts[0].sums},
        final={name: np.concatenate([part.final[name] for part in parts]) for name in parts[0].final},
    )


class Batch(NamedTuple):
    """One sampling round: the steps, their episodes, and the family's info per step ([M, S] or [M, S, k])."""

    steps: Steps
    episodes: Episodes
    info: dict[str, np.ndarray]
