"""Tasks spread over shards: the promises of the design for TESP's methods."""

import numpy as np
import pytest
import tensorflow as tf
from test_learner import make_learner, silent
from toy_pool import split

from metarl.experiment.errors import UserError
from tesp.families.point import Point
from tesp.validation import adapt_to_goals


def first_batch(learner):
    tasks = learner.draw_tasks()
    adaptations = learner.pool.collect(tasks, parameters=learner.parameters, seed=2, iteration=0)
    sums, _ = learner.pool.evaluate(key=adaptations[0].key, parameters=learner.parameters, what="outer_gradient")
    returns = [np.concatenate([one.rounds[k].episode_return for one in adaptations]) for k in range(3)]
    return tasks, returns, sums


@pytest.mark.parametrize(
    ("method", "meta_update"),
    [
        ("TESP", {}),
        ("MAESN", {}),
        ("MetaSGD", {"replay_inner": True}),
        pytest.param("TESP", {"second_order": True}, marks=pytest.mark.slow),
    ],
)
def test_two_shards_agree_with_one(method, meta_update):
    """Tasks, noise and first batch are the same numbers; the first gradient within rounding."""
    one, two = make_learner(method, meta_update=meta_update), split(make_learner(method, meta_update=meta_update), 2)
    (tasks, returns, sums), (other_tasks, other_returns, other_sums) = first_batch(one), first_batch(two)
    np.testing.assert_array_equal(tasks.tasks, other_tasks.tasks)
    np.testing.assert_array_equal(returns[0], other_returns[0])
    np.testing.assert_allclose(returns[-1], other_returns[-1], rtol=1e-4)
    for a, b in zip(tf.nest.flatten(sums), tf.nest.flatten(other_sums), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-4 * np.abs(a).max())


def test_returns_after_two_updates():
    one, two = make_learner("MAML"), split(make_learner("MAML"), 3)
    for _ in range(2):
        metrics, others = one.run_iteration(silent), two.run_iteration(silent)
    names = [name for name in metrics if "return" in name and metrics[name] is not None]
    assert any(name.startswith("validation") for name in names)
    for name in names:
        np.testing.assert_allclose(others[name], metrics[name], rtol=1e-3, atol=1e-3)
    assert metrics["env_steps/validation"] == others["env_steps/validation"]


def test_validation_in_chunks_over_shards():
    """Seven goals, three at once, in shards of two and one: a chunk's padding may fill a whole shard."""
    one, two = make_learner("MAML", family=Point(arrival_threshold=0.3)), None
    two = split(make_learner("MAML", family=Point(arrival_threshold=0.3)), 2)
    results = [
        adapt_to_goals(learner.pool, learner.parameters, learner.goal_sets.test_1, seed=2, iteration=0, phase="check")
        for learner in (one, two)
    ]
    for a, b in zip(results[0].rounds, results[1].rounds, strict=True):
        np.testing.assert_array_equal(a.task, b.task)
        np.testing.assert_allclose(a.episode_return, b.episode_return, rtol=1e-3)


def test_evidence_comes_from_all_shards():
    learner = split(make_learner("MAML"), 2)
    learner.run_iteration(silent)
    assert {"shard_0/steps/reward", "shard_1/steps/reward"} <= set(learner.crash_evidence())


def test_more_shards_than_tasks_are_one_line():
    with pytest.raises(UserError, match="4 shards are too many: TespLearner has 3 tasks"):
        make_learner("MAML").require_split(4)
