"""What adaptation changes and where models disagree, over all steps that were imagined (section 9.2)."""

import numpy as np
import pytest
import tensorflow as tf
from learner_tools import ensemble, metrpo, policy, silent

from mbmpo import adaptation_effect
from mbmpo.adaptation_effect import AdaptationEffect, Disagreement
from mbmpo.distributions import kl_divergence
from mbmpo.objectives import Phase

M, S, O, A = 3, 11, 4, 2  # noqa: E741


def phase(rng):
    valid = np.arange(S) < np.array([[S], [5], [0]])
    arrays = {"observation": O, "action": A, "logits": 2 * A}
    # What is not valid must not count, whatever it is.
    found = {name: np.where(valid[..., None], rng.normal(size=(M, S, width)), np.nan) for name, width in arrays.items()}
    rest = {name: np.zeros((M, S)) for name in Phase._fields if name not in (*arrays, "valid")}
    return Phase(**{name: x.astype("f") for name, x in (found | rest).items()}, valid=valid)


@pytest.mark.parametrize("block", [3, 4, 16, 4000])
def test_means_are_over_every_valid_row(monkeypatch, block):
    monkeypatch.setattr(adaptation_effect, "_BLOCK", block)
    models, acting, data = ensemble(num_models=3), policy(), phase(np.random.default_rng(0))
    effective, weights = models.effective(models.initial_state(1, O, A)), acting.initial_weights(1, O, A)
    sums = AdaptationEffect(acting, models)(weights, effective, data)
    assert {name: rows for name, (_, rows) in sums.items()} == dict.fromkeys(sums, S + 5)
    divergences, spreads = [], []
    for task, step in np.argwhere(data.valid):
        row = {name: getattr(data, name)[task, step][None] for name in ("observation", "action", "logits")}
        before = acting.logits(weights, tf.constant(row["observation"][None]))[0]
        divergences.append(float(kl_divergence(before, tf.constant(row["logits"]))[0]))
        told = models.predict_all(effective, tf.constant(row["observation"]), tf.constant(row["action"])).numpy()[0]
        spreads.append(told.std(axis=-1).mean())
    found = adaptation_effect.means([sums])
    assert found.keys() == {"adaptation/kl_pre_post", "model/disagreement"}
    np.testing.assert_allclose(found["adaptation/kl_pre_post"], np.mean(divergences), rtol=1e-5)
    np.testing.assert_allclose(found["model/disagreement"], np.mean(spreads), rtol=1e-4)


def test_shards_weigh_as_many_rows_as_they_have():
    parts = [{"model/disagreement": (6.0, 3)}, {"model/disagreement": (0.0, 1)}]
    assert adaptation_effect.means(parts) == {"model/disagreement": 1.5}
    assert adaptation_effect.means([{"model/disagreement": (0.0, 0)}]) == {"model/disagreement": None}


@pytest.mark.parametrize("rows", [1, 3, 5, 100])
def test_the_disagreement_of_some_steps_of_each_task(rows):
    models, data = ensemble(num_models=3), phase(np.random.default_rng(0))
    effective = models.effective(models.initial_state(1, O, A))
    total, count = Disagreement(models, rows)(effective, data)["model/disagreement"]
    # Evenly spread over the valid ones: 11 in the first task, 5 in the second.
    steps = {1: ([0], [0]), 3: ([0, 3, 7], [0, 1, 3]), 5: ([0, 2, 4, 6, 8], range(5)), 100: (range(11), range(5))}
    taken = [(task, step) for task, found in enumerate(steps[rows]) for step in found]
    told = [
        models.disagreement(effective, *(tf.constant(x[task, step][None]) for x in (data.observation, data.action)))
        for task, step in taken
    ]
    assert count == len(taken)
    np.testing.assert_allclose(total, np.sum(told), rtol=1e-5)


def test_some_steps_of_a_task_do_not_depend_on_the_split():
    models, data = ensemble(num_models=3), phase(np.random.default_rng(0))
    effective = models.effective(models.initial_state(1, O, A))
    found = Disagreement(models, 3)
    parts = [found(effective, Phase(*(x[task : task + 1] for x in data))) for task in range(M)]
    whole = adaptation_effect.means([found(effective, data)])["model/disagreement"]
    np.testing.assert_allclose(adaptation_effect.means(parts)["model/disagreement"], whole, rtol=1e-6)


def test_a_mean_that_is_not_finite_is_left_out():
    parts = [{"model/disagreement": (float("inf"), 3), "adaptation/kl_pre_post": (6.0, 3)}]
    assert adaptation_effect.means(parts) == {"model/disagreement": None, "adaptation/kl_pre_post": 2.0}


def test_me_trpo_tells_where_its_models_disagree():
    learner = metrpo()
    found = learner.run_iteration(silent)["model/disagreement"]
    shard = learner.pool.shards[0]
    effective, steps = learner.ensemble.effective(learner.models), shard._steps
    rows = [tf.boolean_mask(x, steps.valid) for x in (steps.observation, steps.action)]
    assert found > 0.0
    np.testing.assert_allclose(found, np.mean(learner.ensemble.disagreement(effective, *rows)), rtol=1e-4)
    total, rows = Disagreement(learner.ensemble)(effective, steps)["model/disagreement"]
    assert total / rows == found
