"""The buffer of episodes that the task encoder reads (TESP specification, section 3.8).

Host-side bookkeeping: which episodes are kept, in which order, padded to one constant shape.
Shapes: `M` tasks, `B` episodes (a capacity), `H` horizon, `F` features per step.
"""

from typing import NamedTuple

import numpy as np

from metarl.experiment.errors import UserError
from metarl.sampling.steps import Batch, Steps
from tesp.methods import EncoderInput

EPISODE_MODES = ("episode_buffer", "last_episodes", "all_episodes")


class Episode(NamedTuple):
    """One stored episode: its undiscounted return and its encoder features [T, F]."""

    episode_return: float
    features: np.ndarray


class EpisodeBuffer:
    """Buffered episodes of M tasks, emptied at the start of every adaptation.

    Args:
        num_tasks: M.
        mode: "episode_buffer" keeps the `size` episodes of highest undiscounted return (control cost included) seen
            so far, best first, older before newer among equals; "last_episodes" keeps the latest round;
            "all_episodes" keeps everything.
        size: episodes kept per task in mode "episode_buffer".
    """

    def __init__(self, num_tasks: int, mode: str, size: int):
        self._mode = mode
        self._size = size
        self._tasks: list[list[Episode]] = [[] for _ in range(num_tasks)]

    def extend(self, task: int, episodes: list[Episode]) -> None:
        """Takes in one round's episodes of one task, in order of completion."""
        if self._mode == "last_episodes":
            self._tasks[task] = list(episodes)
            return
        merged = self._tasks[task] + list(episodes)
        if self._mode == "episode_buffer":
            # Python's sort is stable, also when reversed through the key: ties stay in order of arrival.
            merged = sorted(merged, key=lambda episode: -episode.episode_return)[: self._size]
        self._tasks[task] = merged

    def extend_batch(self, batch: Batch, features: np.ndarray) -> None:
        """Takes in a sampling round of all tasks; `features` is [M, S, F] along the round's steps."""
        episodes = batch.episodes
        stops = episodes.start + episodes.length
        by_task: list[list[Episode]] = [[] for _ in self._tasks]
        for task, start, stop, value in zip(episodes.task, episodes.start, stops, episodes.episode_return, strict=True):
            by_task[task].append(Episode(value, features[task, start:stop]))
        for task, found in enumerate(by_task):
            self.extend(task, found)

    def episodes(self, task: int) -> list[Episode]:
        """The episodes of one task, in buffer order."""
        return self._tasks[task]

    def padded(self, capacity: int, horizon: int, feature_dim: int) -> EncoderInput:
        """The buffer as arrays of one constant shape.

        Args:
            capacity: B, at least the number of episodes of any task.
            horizon: H.
            feature_dim: F.

        Returns:
            Features [M, B, H, F] float32 and lengths [M, B] int32.

        Raises:
            UserError: a task holds more than `capacity` episodes.
        """
        features = np.zeros((len(self._tasks), capacity, horizon, feature_dim), np.float32)
        lengths = np.zeros((len(self._tasks), capacity), np.int32)
        for task, episodes in enumerate(self._tasks):
            if len(episodes) > capacity:
                raise UserError(
                    f"a task's buffer holds {len(episodes)} episodes but FastAdaptation.encoder_episode_capacity is"
                    f" {capacity}; raise it"
                )
            for slot, episode in enumerate(episodes):
                features[task, slot, : len(episode.features)] = episode.features
                lengths[task, slot] = len(episode.features)
        return EncoderInput(features, lengths)


def encoder_features(steps: Steps, action_feature: str) -> np.ndarray:
    """What the encoder reads of each step (section 2.2): observation, logits or action, reward; [M, S, F] float32.

    Args:
        steps: NumPy arrays.
        action_feature: "logits" for the recorded distribution parameters, "action" for the sampled action (D16).
    """
    action = steps.logits if action_feature == "logits" else steps.action
    return np.concatenate([steps.observation, action, steps.reward[..., np.newaxis]], axis=-1)
