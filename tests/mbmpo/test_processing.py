"""Advantages and statistics against naive loops over episodes, for any layout of episodes and any padding."""

import numpy as np
import pytest
import tensorflow as tf

from mbmpo.processing import Processing, path_statistics, pooled
from metarl.experiment.errors import UserError
from metarl.sampling.steps import Steps

OBSERVATION, A = 3, 2


def batch(lengths, gaps=1, seed=0, dtype=np.float64, padding=np.nan):
    """Steps of one row of episodes per task; `gaps` unfinished steps, holding `padding`, stand behind each task's."""
    rng = np.random.default_rng(seed)
    S = max(sum(row) for row in lengths) + gaps
    M = len(lengths)
    steps = Steps(
        observation=np.full((M, S, OBSERVATION), padding, dtype),
        action=np.full((M, S, A), padding, dtype),
        reward=np.full((M, S), padding, dtype),
        logits=np.full((M, S, 2 * A), padding, dtype),
        time=np.zeros((M, S), np.int32),
        valid=np.zeros((M, S), bool),
        last=np.zeros((M, S), bool),
    )
    for task, row in enumerate(lengths):
        start = 0
        for n in row:
            steps.observation[task, start : start + n] = rng.normal(size=(n, OBSERVATION))
            steps.action[task, start : start + n] = rng.normal(size=(n, A))
            steps.reward[task, start : start + n] = rng.normal(size=n)
            steps.logits[task, start : start + n] = rng.normal(size=(n, 2 * A))
            steps.time[task, start : start + n] = np.arange(n)
            steps.valid[task, start : start + n] = True
            steps.last[task, start + n - 1] = True
            start += n
    return Steps(*(tf.constant(x) for x in steps))


def episodes(steps, task):
    found, begin = [], 0
    for t in range(steps.valid.shape[1]):
        if not bool(steps.valid[task, t]):
            begin = t + 1
        elif bool(steps.last[task, t]):
            found.append(slice(begin, t + 1))
            begin = t + 1
    return found


def naive_features(steps, task, rows):
    o = np.clip(steps.observation.numpy()[task, rows], -10, 10)
    t = steps.time.numpy()[task, rows][:, None] / 100.0
    return np.concatenate([o, o**2, t, t**2, t**3, np.ones_like(t)], axis=1)


def naive(steps, task, gamma, lambda_):
    parts = episodes(steps, task)
    reward = steps.reward.numpy()[task]
    returns = [
        sum(gamma ** (u - t) * reward[u] for u in range(t, e.stop)) for e in parts for t in range(e.start, e.stop)
    ]
    phi = np.concatenate([naive_features(steps, task, e) for e in parts])
    weights = np.linalg.solve(phi.T @ phi + 1e-5 * np.eye(phi.shape[1]), phi.T @ np.array(returns))
    advantages = []
    for e in parts:
        value = np.append(naive_features(steps, task, e) @ weights, 0.0)
        r = reward[e]
        for t in range(len(r)):
            advantages.append(
                sum((gamma * lambda_) ** (u - t) * (r[u] + gamma * value[u + 1] - value[u]) for u in range(t, len(r)))
            )
    return np.array(returns), np.array(advantages), weights


@pytest.mark.parametrize("lambda_", [1.0, 0.9, 0.0])
def test_against_loops(lambda_):
    steps = batch([[12, 1, 9], [20, 14], [5, 5, 5, 5, 5]])
    found = Processing(gamma=0.95, lambda_=lambda_, center=False).fitted(steps)
    for task in range(3):
        rows = np.flatnonzero(steps.valid[task])
        returns, advantages, weights = naive(steps, task, 0.95, lambda_)
        np.testing.assert_allclose(found.returns.numpy()[task, rows], returns, 1e-9)
        np.testing.assert_allclose(found.coefficients[task], weights, 1e-5, 1e-7)
        np.testing.assert_allclose(found.advantage.numpy()[task, rows], advantages, 1e-7, 1e-8)
    padding = ~steps.valid.numpy()
    np.testing.assert_array_equal(found.advantage.numpy()[padding], 0.0)


def test_standardised_per_task_and_shifted():
    steps = batch([[12, 1, 9], [20, 14]])
    plain = Processing(center=False).maml(steps).numpy()
    centred = Processing().maml(steps).numpy()
    shifted = Processing(positive=True).maml(steps).numpy()
    for task in range(2):
        rows = np.flatnonzero(steps.valid[task])
        a = plain[task, rows]
        np.testing.assert_allclose(centred[task, rows], (a - a.mean()) / (a.std() + 1e-8), 1e-9, 1e-12)
        np.testing.assert_allclose(shifted[task, rows], centred[task, rows] - centred[task, rows].min() + 1e-8, 1e-9)


def test_a_bound_on_the_length_changes_nothing():
    steps = batch([[12, 1, 9], [20, 14]])
    np.testing.assert_allclose(Processing().maml(steps, max_length=20), Processing().maml(steps), 1e-12)


def test_float32_in_float32_out():
    steps = batch([[12, 9]], dtype=np.float32)
    assert Processing().maml(steps).dtype == tf.float32


def test_the_two_orders():
    """The first batch predicts zeros; the second predicts with the first one's fit."""
    settings = Processing(center=False, lambda_=0.9)
    first, second = batch([[12, 9]], seed=1), batch([[8, 13]], seed=2)
    advantage, coefficients = settings.sequential(first, None)
    rows = np.flatnonzero(first.valid[0])
    zero_value = np.concatenate(
        [
            [
                sum((0.99 * 0.9) ** k * r for k, r in enumerate(first.reward.numpy()[0, t : e.stop]))
                for t in range(e.start, e.stop)
            ]
            for e in episodes(first, 0)
        ]
    )
    np.testing.assert_allclose(advantage.numpy()[0, rows], zero_value, 1e-9, 1e-10)
    np.testing.assert_allclose(coefficients, settings.fitted(first).coefficients, 1e-12)
    found = settings.predicted_then_fitted(second, coefficients)
    expected = naive_features(second, 0, np.flatnonzero(second.valid[0])) @ coefficients.numpy()[0]
    np.testing.assert_allclose(found.value.numpy()[0, second.valid[0].numpy()], expected, 1e-9)


def test_statistics_are_those_of_all_paths():
    steps = batch([[12, 1, 9], [20, 14]], gaps=3)
    found = {name: float(value) for name, value in path_statistics(steps, Processing().fitted(steps)).items()}
    totals = [float(steps.reward.numpy()[task, e].sum()) for task in range(2) for e in episodes(steps, task)]
    discounted = [
        sum(0.99**k * r for k, r in enumerate(steps.reward.numpy()[task, e]))
        for task in range(2)
        for e in episodes(steps, task)
    ]
    log_std = steps.logits.numpy()[..., A:][steps.valid.numpy()]
    entropy = float(np.mean(np.sum(log_std + 0.5 * np.log(2 * np.pi * np.e), axis=-1)))
    expected = {
        "average_return": np.mean(totals),
        "std_return": np.std(totals),
        "max_return": np.max(totals),
        "min_return": np.min(totals),
        "num_paths": 5,
        "average_discounted_return": np.mean(discounted),
        "entropy": entropy,
        "perplexity": np.exp(entropy),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-9), name
    assert found["explained_variance"] < 1.0
    assert path_statistics(pooled(steps)).keys() == path_statistics(steps).keys()


@pytest.mark.parametrize(
    "settings", [{"gamma": 1.5}, {"lambda_": -0.1}, {"center": "yes"}, {"positive": 1}], ids=lambda s: next(iter(s))
)
def test_bad_settings(settings):
    with pytest.raises(UserError, match=f"Processing.{next(iter(settings))}"):
        Processing(**settings)
