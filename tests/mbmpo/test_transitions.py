"""Transitions of real paths and the buffer that forgets the oldest."""

import numpy as np
import pytest

from mbmpo.transitions import FINAL_OBSERVATION, append, empty, from_steps
from metarl.experiment.errors import UserError
from metarl.sampling.steps import Batch, Steps


def paths(lengths, capacity):
    """Steps [M, capacity] of paths with the given lengths per task; observation = (task, path, t)."""
    M = len(lengths)
    steps = Steps(
        observation=np.zeros((M, capacity, 3), np.float32),
        action=np.zeros((M, capacity, 1), np.float32),
        reward=np.zeros((M, capacity), np.float32),
        logits=np.zeros((M, capacity, 2), np.float32),
        time=np.zeros((M, capacity), np.int32),
        valid=np.zeros((M, capacity), bool),
        last=np.zeros((M, capacity), bool),
    )
    for task, own in enumerate(lengths):
        at = 0
        for path, length in enumerate(own):
            for t in range(length):
                steps.observation[task, at] = task, path, t
                steps.action[task, at] = 10 * t
                steps.time[task, at], steps.valid[task, at], steps.last[task, at] = t, True, t == length - 1
                at += 1
    return steps


def test_drops_the_last_step_of_each_path_task_by_task_and_path_by_path():
    result = from_steps(paths([[3, 1], [2, 4]], 7))
    expected = [(0, 0, 0), (0, 0, 1), (1, 0, 0), (1, 1, 0), (1, 1, 1), (1, 1, 2)]
    np.testing.assert_array_equal(result.observation, expected)
    np.testing.assert_array_equal(result.next_observation, [(task, path, t + 1) for task, path, t in expected])
    np.testing.assert_array_equal(result.action[:, 0], [0, 10, 0, 0, 10, 20])
    np.testing.assert_array_equal(result.time, [0, 1, 0, 0, 1, 2])
    assert result.time.dtype == np.int32
    assert result.observation.dtype == np.float32


def test_keeps_the_last_steps_on_request():
    steps = paths([[2, 1]], 4)
    final = np.full((1, 4, 3), 7.0)
    for result in (
        from_steps(steps, store_last=True, final_observation=final),
        from_steps(Batch(steps, None, {FINAL_OBSERVATION: final}), store_last=True),
    ):
        np.testing.assert_array_equal(result.observation, [(0, 0, 0), (0, 0, 1), (0, 1, 0)])
        np.testing.assert_array_equal(result.next_observation, [(0, 0, 1), (7, 7, 7), (7, 7, 7)])
    with pytest.raises(UserError, match="store_last_transition"):
        from_steps(steps, store_last=True)


def test_buffer_forgets_the_oldest_rows():
    first, second = from_steps(paths([[4]], 4)), from_steps(paths([[3, 3]], 6))
    buffer = append(append(empty(3, 1), first, 5), second, 5)
    assert len(buffer.time) == 5
    np.testing.assert_array_equal(buffer.time, [2, 0, 1, 0, 1])
    np.testing.assert_array_equal(buffer.observation[1:], second.observation)
    assert len(append(buffer, second, None).time) == 9
