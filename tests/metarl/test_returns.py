"""Returns, advantages and the baseline against naive loops, for any episode structure."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from metarl.returns import linear_baseline
from metarl.returns.advantages import discounted_returns, discounted_suffix_sum, generalized_advantages


@st.composite
def batches(draw):
    """(lengths of the episodes of each of two tasks, capacity)."""
    tasks = [draw(st.lists(st.integers(1, 9), min_size=1, max_size=5)) for _ in range(2)]
    return tasks, max(map(sum, tasks)) + draw(st.integers(0, 4))


def masks(tasks, capacity):
    last = np.zeros((len(tasks), capacity), bool)
    valid = np.zeros((len(tasks), capacity), bool)
    for task, lengths in enumerate(tasks):
        last[task, np.cumsum(lengths) - 1] = True
        valid[task, : sum(lengths)] = True
    return valid, last


@settings(deadline=None, max_examples=40)
@given(batches(), st.sampled_from([0.0, 0.5, 0.99, 1.0]), st.sampled_from([0.0, 0.97, 1.0]), st.integers(0, 999))
def test_against_naive_loops(batch, gamma, lambda_, seed):
    tasks, capacity = batch
    valid, last = masks(tasks, capacity)
    rng = np.random.default_rng(seed)
    reward = rng.normal(size=valid.shape) * valid
    value = rng.normal(size=valid.shape)
    returns, advantages = np.zeros_like(reward), np.zeros_like(reward)
    for task in range(len(tasks)):
        running, advantage, next_value = 0.0, 0.0, 0.0
        for t in reversed(range(sum(tasks[task]))):
            if last[task, t]:
                running, advantage, next_value = 0.0, 0.0, 0.0
            running = reward[task, t] + gamma * running
            advantage = reward[task, t] + gamma * next_value - value[task, t] + gamma * lambda_ * advantage
            next_value = value[task, t]
            returns[task, t], advantages[task, t] = running, advantage
    found = discounted_returns(tf.constant(reward), tf.constant(last), gamma, 9)
    np.testing.assert_allclose(found, returns, rtol=1e-10, atol=1e-12)
    found = generalized_advantages(tf.constant(reward), tf.constant(value), tf.constant(last), gamma, lambda_, 9)
    np.testing.assert_allclose(np.where(valid, found, 0.0), advantages * valid, rtol=1e-10, atol=1e-12)


def test_three_steps_by_hand():
    """Specification, section 10: value after the last step is 0."""
    reward, value = tf.constant([[1.0, 2.0, 3.0]]), tf.constant([[0.5, 1.0, 2.0]])
    last = tf.constant([[False, False, True]])
    delta = [1 + 0.5 * 1 - 0.5, 2 + 0.5 * 2 - 1, 3 - 2]
    expected = [delta[0] + 0.25 * (delta[1] + 0.25 * delta[2]), delta[1] + 0.25 * delta[2], delta[2]]
    np.testing.assert_allclose(generalized_advantages(reward, value, last, 0.5, 0.5, 3)[0], expected, rtol=1e-6)


def test_suffix_sum_needs_as_many_rounds_as_the_longest_episode():
    last = tf.constant([[False] * 6 + [True]])
    ones = tf.ones((1, 7), tf.float64)
    np.testing.assert_allclose(discounted_suffix_sum(ones, last, 1.0, 7)[0], np.arange(7, 0, -1))


class TestBaseline:
    def test_features(self):
        phi = linear_baseline.features(tf.constant([[[20.0, -0.5]]]), tf.constant([[150]]))
        np.testing.assert_allclose(phi[0, 0], [10, -0.5, 100, 0.25, 1.5, 2.25, 3.375, 1])
        assert phi.dtype == tf.float64

    def test_invalid_rows_do_not_count_and_tasks_are_separate(self):
        rng = np.random.default_rng(0)
        phi = rng.normal(size=(2, 40, 5))
        target = rng.normal(size=(2, 40)).astype(np.float32)
        valid = np.arange(40) < np.array([[30], [17]])
        found = linear_baseline.fit(tf.constant(phi), tf.constant(target), tf.constant(valid))
        for task, n in enumerate((30, 17)):
            rows = phi[task, :n]
            gram = rows.T @ rows + 1e-5 * np.eye(5)
            np.testing.assert_allclose(found[task], np.linalg.solve(gram, rows.T @ target[task, :n]), rtol=1e-9)

    @pytest.mark.parametrize("where", ["features", "target"])
    def test_non_finite_input_is_shown_not_raised(self, where):
        phi, target = np.ones((2, 6, 3)), np.ones((2, 6))
        phi[:, :, 1:] = np.random.default_rng(0).normal(size=(2, 6, 2))
        (phi if where == "features" else target)[0, 2] = np.nan
        found = linear_baseline.fit(tf.constant(phi), tf.constant(target), tf.ones((2, 6), tf.bool)).numpy()
        assert np.isnan(found[0]).all()
        assert np.isfinite(found[1]).all()

    def test_constant_column_is_resolved(self):
        """The ridge separates a constant feature from the built-in one: finite, and the fit is right."""
        observation = np.ones((1, 50, 1), np.float32)
        phi = linear_baseline.features(tf.constant(observation), tf.range(50)[tf.newaxis])
        target = tf.cast(tf.range(50), tf.float64)[tf.newaxis]
        valid = tf.ones((1, 50), tf.bool)
        predicted = linear_baseline.predict(phi, linear_baseline.fit(phi, target, valid))
        np.testing.assert_allclose(predicted, target, atol=0.05)
