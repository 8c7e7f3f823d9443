"""Models with errors put in on purpose (MB-MPO specification, 9.1 and 9.2)."""

import numpy as np
import pytest
import tensorflow as tf
from test_ensemble import ACTION_DIM, OBSERVATION_DIM, assert_same, fit, make_data

from mbmpo.dynamics import BadDynamicsEnsemble, DynamicsEnsemble, FakePointEnsemble
from mbmpo.dynamics.bad_models import row_noise
from metarl.experiment.errors import UserError

MODELS = tf.range(2)


def make_bad(**settings):
    return BadDynamicsEnsemble(**{"num_models": 3, "hidden_sizes": (8,), "batch_size": 7, **settings})


def test_bias_is_added_in_normalised_units_and_redrawn():
    bad = make_bad(output_bias_range=(0.5, 1.0))
    state, _ = fit(bad, epochs=1)
    bias = state.output_error["bias"].numpy()
    assert ((bias >= 0.5) & (bias <= 1.0)).all()
    assert len(set(bias)) == 3
    honest, data = DynamicsEnsemble(num_models=3, hidden_sizes=(8,)), make_data(6)
    difference = bad.predict_all(bad.effective(state), data.observation, data.action) - honest.predict_all(
        honest.effective(state), data.observation, data.action
    )
    expected = np.asarray(state.normalisation.delta_std)[:, None] * bias
    np.testing.assert_allclose(difference, np.broadcast_to(expected, (6, OBSERVATION_DIM, 3)), rtol=1e-3, atol=1e-6)
    again, _ = fit(bad, epochs=1, state=state, iteration=1)
    assert not np.array_equal(again.output_error["bias"], bias)
    keeping = make_bad(output_bias_range=(0.5, 1.0), resample_output_bias=False)
    kept, _ = fit(keeping, epochs=1, state=state, iteration=1)
    np.testing.assert_array_equal(kept.output_error["bias"], bias)


def test_joint_fit_shares_split_batches_and_stop():
    bad = make_bad(persistency=0.0)
    permutations = bad._permutations(23, 5, 0)
    assert (permutations == permutations[0]).all()
    _, result = fit(bad, epochs=40)
    assert len(set(result.last_epoch)) == 1
    mean = result.valid_loss.mean(axis=1)
    # Without memory the rule stops at the first epoch whose loss is above the one before.
    rising = np.flatnonzero(mean[1:] > mean[:-1])
    assert result.last_epoch[0] == (rising[0] + 1 if rising.size else 39)


def test_noise_is_standard_normal_and_a_function_of_the_row():
    rng = np.random.default_rng(0)
    key = tf.constant([3, 4], tf.int32)
    o, a = (
        rng.normal(size=(2, 20_000, OBSERVATION_DIM)).astype("f"),
        rng.normal(size=(2, 20_000, ACTION_DIM)).astype("f"),
    )
    noise = row_noise(key, MODELS, tf.constant(o), tf.constant(a)).numpy()
    assert np.isfinite(noise).all()
    np.testing.assert_allclose(noise.mean(axis=(0, 1)), 0.0, atol=0.02)
    np.testing.assert_allclose(noise.std(axis=(0, 1)), 1.0, atol=0.02)
    np.testing.assert_allclose((noise**4).mean(), 3.0, atol=0.1)
    flat = noise.reshape(-1, OBSERVATION_DIM)
    assert np.abs(np.corrcoef(flat.T) - np.eye(OBSERVATION_DIM)).max() < 0.02
    part = row_noise(key, MODELS, tf.constant(o[:, 5:9]), tf.constant(a[:, 5:9])).numpy()
    np.testing.assert_array_equal(part, noise[:, 5:9])
    same = row_noise(key, MODELS, tf.constant(o[[0, 0]]), tf.constant(a[[0, 0]])).numpy()
    assert np.abs(np.corrcoef(same[0].ravel(), same[1].ravel())[0, 1]) < 0.02
    assert not np.array_equal(row_noise(key + 1, MODELS, tf.constant(o), tf.constant(a)), noise)


@pytest.mark.parametrize("kind", [BadDynamicsEnsemble, FakePointEnsemble])
def test_noise_is_the_models_own_in_whatever_block_it_predicts(kind):
    """Blocks by models 1, 1, 2 say what the same rows are told by all three models in order."""
    settings = {"mask": "hard"} if kind is FakePointEnsemble else {"hidden_sizes": (8,)}
    bad = kind(num_models=3, output_bias_range=(0.0, 1.0), gaussian_noise_output_std=0.1, **settings)
    effective = bad.effective(bad.initial_state(1, 2, 2))
    rng = np.random.default_rng(4)
    o, a = (tf.constant(rng.normal(size=(3, 5, 2)).astype("f")) for _ in range(2))
    models = np.array([1, 1, 2])
    found = bad.predict_blocks(bad.selected(effective, models), o, a)
    for block, model in enumerate(models):
        rows = [tf.repeat(x[block : block + 1], 3, axis=0) for x in (o, a)]
        np.testing.assert_allclose(found[block], bad.predict_blocks(effective, *rows)[model], rtol=1e-5)


def test_noise_reaches_predictions_compiled_too():
    bad = make_bad(gaussian_noise_output_std=0.1)
    state, _ = fit(bad, epochs=1)
    honest, data = DynamicsEnsemble(num_models=3, hidden_sizes=(8,)), make_data(2000)
    noise = bad.predict_all(bad.effective(state), data.observation, data.action) - honest.predict_all(
        honest.effective(state), data.observation, data.action
    )
    scale = np.asarray(state.normalisation.delta_std)
    np.testing.assert_allclose(noise.numpy().std(axis=0).mean(axis=-1), 0.1 * scale, rtol=0.05)
    compiled = tf.function(bad.predict_all, jit_compile=True, autograph=False)
    found = compiled(bad.effective(state), tf.constant(data.observation), tf.constant(data.action))
    expected = bad.predict_all(bad.effective(state), data.observation, data.action)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("mask", "at_goal"), [("smooth", False), ("smooth", True), ("hard", False)])
def test_fake_point(mask, at_goal):
    fake = FakePointEnsemble(
        num_models=2, output_bias_range=(-0.3, 0.3), mask=mask, error_at_goal=at_goal, goal=(0.2, 0.1)
    )
    rng = np.random.default_rng(2)
    o, a = rng.uniform(-2, 2, (30, 2)).astype("f"), rng.uniform(-0.3, 0.3, (30, 2)).astype("f")
    data = make_data(30)
    data.observation, data.action = o, a
    data.next_observation = o + np.clip(a, -0.1, 0.1)
    state, result = fake.fit(fake.initial_state(1, 2, 2), data, seed=1, iteration=2, max_epochs=9)
    again, _ = fake.fit(state, data, seed=1, iteration=3, max_epochs=9)
    bias = state.output_error["bias"].numpy()
    assert not np.array_equal(bias, again.output_error["bias"])
    assert_same(state, fake.fit(state, data, seed=1, iteration=2, max_epochs=9)[0])
    d = np.linalg.norm(o - np.array([0.2, 0.1]), axis=1)
    weight = (d > 0.5) if mask == "hard" else ((1 - d / d.max()) if at_goal else d / d.max()) ** 2
    expected = data.next_observation[..., None] + weight[:, None, None] * bias
    found = fake.predict_all(fake.effective(state), o, a)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert result.valid_loss.shape == (1, 2)
    assert result.last_epoch.tolist() == [0, 0]


@pytest.mark.parametrize(("scale", "moves"), [(1.0, [0.05, -0.1]), (0.1, [0.005, -0.05])])
def test_fake_point_takes_actions_for_metres_unless_told_otherwise(scale, moves):
    fake = FakePointEnsemble(num_models=2, action_scale=scale)
    effective = fake.effective(fake.initial_state(0, 2, 2))
    found = fake.predict_all(effective, tf.zeros([1, 2]), tf.constant([[0.05, -0.5]]))
    np.testing.assert_allclose(found[0], np.transpose([moves, moves]), rtol=1e-6)


def test_fake_point_knows_the_plane_only():
    with pytest.raises(UserError, match="the point only"):
        FakePointEnsemble().initial_state(0, 3, 2)
    with pytest.raises(UserError, match="error_at_goal"):
        FakePointEnsemble(mask="hard", error_at_goal=True)
