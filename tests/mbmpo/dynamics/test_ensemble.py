"""The ensemble against naive NumPy, finite differences and its own promises."""

from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from mbmpo.dynamics import BadDynamicsEnsemble, DynamicsEnsemble, MetaDynamicsEnsemble, MLPDynamicsModel, networks
from mbmpo.dynamics.prediction import block_capacity
from metarl.experiment.errors import UserError
from metarl.experiment.learner import NonFiniteError
from metarl.scaling import cores

OBSERVATION_DIM, ACTION_DIM = 3, 2


def make_data(N, seed=0):
    rng = np.random.default_rng(seed)
    observation, action = rng.normal(size=(N, OBSERVATION_DIM)), rng.normal(size=(N, ACTION_DIM))
    following = observation + 0.1 * np.tanh(observation[:, ::-1] + action[:, :1])
    rows = (observation, action, following)
    return SimpleNamespace(
        **dict(zip(("observation", "action", "next_observation"), (x.astype(np.float32) for x in rows), strict=True))
    )


def make_ensemble(**settings):
    return DynamicsEnsemble(**{"num_models": 3, "hidden_sizes": (8, 6), "batch_size": 7, **settings})


def fit(ensemble, N=23, epochs=3, state=None, iteration=0, seed=5, data=None, **given):
    state = ensemble.initial_state(seed, OBSERVATION_DIM, ACTION_DIM) if state is None else state
    data = make_data(N) if data is None else data
    return ensemble.fit(state, data, seed=seed, iteration=iteration, max_epochs=epochs, **given)


def assert_same(a, b):
    for x, y in zip(tf.nest.flatten(a), tf.nest.flatten(b), strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


@pytest.mark.parametrize("weight_normalization", [True, False])
def test_gradients_are_those_of_a_tape(weight_normalization):
    weights = networks.initial_weights(0, "model0", (OBSERVATION_DIM, 8, 6, 2), weight_normalization)
    rng = np.random.default_rng(1)
    weights = {key: tf.cast(value + rng.normal(size=value.shape), tf.float64) for key, value in weights.items()}
    x, y = tf.constant(rng.normal(size=(9, OBSERVATION_DIM))), tf.constant(rng.normal(size=(9, 2)))
    with tf.GradientTape() as tape:
        tape.watch(weights)
        expected_loss = tf.reduce_mean(tf.square(networks.predict(networks.effective_layers(weights), x) - y))
    expected = tape.gradient(expected_loss, weights)
    loss, found = networks.loss_and_gradients(weights, x, y)
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-12)
    assert found.keys() == weights.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-9, atol=1e-12, err_msg=name)


def test_initial_weights():
    state = DynamicsEnsemble(num_models=2, hidden_sizes=(100,)).initial_state(3, OBSERVATION_DIM, ACTION_DIM)
    v = state.weights["layer0.v"].numpy()
    limit = np.sqrt(6 / (OBSERVATION_DIM + ACTION_DIM + 100))
    assert np.abs(v).max() <= limit
    assert np.abs(v).max() > 0.95 * limit
    assert not np.allclose(v[0], v[1])
    np.testing.assert_array_equal(state.weights["layer0.g"], np.ones((2, 100)))
    np.testing.assert_array_equal(state.weights["layer1.bias"], np.zeros((2, OBSERVATION_DIM)))
    np.testing.assert_array_equal(state.step, [0, 0])


def test_a_fit_repeats_bit_by_bit_and_depends_on_its_key():
    first, again = (fit(make_ensemble()) for _ in range(2))
    assert_same(first[0], again[0])
    np.testing.assert_array_equal(first[1].valid_loss, again[1].valid_loss)
    other = fit(make_ensemble(), iteration=1)
    assert not np.array_equal(first[1].valid_loss, other[1].valid_loss)


def test_rows_train_in_consecutive_batches_with_a_smaller_last_one():
    """Losses before the steps of the first epoch, with a learning rate of zero, are those of the batches themselves."""
    ensemble, data = make_ensemble(learning_rate=0.0), make_data(23)
    permutations = np.stack([np.random.default_rng(k).permutation(23) for k in range(3)])
    order = np.array([[2, 0, 1]])
    state, result = fit(ensemble, epochs=1, data=data, permutations=permutations, batch_order=order)
    delta = data.next_observation - data.observation
    scale = np.asarray(state.normalisation.delta_std)
    predicted = ensemble.predict_all(ensemble.effective(state), data.observation, data.action).numpy()
    error = ((predicted - data.next_observation[..., None]) / scale[:, None]) ** 2
    assert delta.std(axis=0) == pytest.approx(scale, rel=1e-5)
    for k, rows in enumerate(permutations):
        batches = [rows[0:7], rows[7:14], rows[14:18]]  # floor(0.8 · 23) = 18 train
        expected = [error[batches[b], :, k].mean() for b in order[0]]
        np.testing.assert_allclose(result.batch_loss[0, :, k], expected, rtol=1e-4)
        np.testing.assert_allclose(result.valid_loss[0, k], error[rows[18:], :, k].mean(), rtol=1e-4)


def test_a_stopped_member_stays_as_it_was_and_the_others_do_not_notice():
    free, together = (make_ensemble(persistency=p, learning_rate=0.05) for p in (1.0, 0.0))
    state, result = fit(together, epochs=30)
    last = result.last_epoch
    assert len(set(last)) > 1, "choose another seed: the members should stop apart"
    for k, epoch in enumerate(last):
        alone, _ = fit(free, epochs=int(epoch) + 1)
        for name, value in state.weights.items():
            np.testing.assert_array_equal(value[k], alone.weights[name][k])
        assert int(state.step[k]) == (epoch + 1) * 3
        assert np.isfinite(result.valid_loss[: epoch + 1, k]).all()
        assert np.isnan(result.valid_loss[epoch + 1 :, k]).all()
    assert result.epochs_run == max(last) + 1


def test_warm_start_carries_moments_and_counters_on():
    ensemble = make_ensemble()
    state, _ = fit(ensemble)
    following, _ = fit(ensemble, state=state, iteration=1)
    np.testing.assert_array_equal(following.step, 2 * state.step.numpy())
    forgetful = state._replace(
        **{n: tf.nest.map_structure(tf.zeros_like, getattr(state, n)) for n in ("first_moment",)}
    )
    other, _ = fit(ensemble, state=forgetful, iteration=1)
    assert not np.array_equal(other.weights["layer0.v"], following.weights["layer0.v"])


def test_reinitialised_forgets_everything():
    ensemble = make_ensemble()
    state, _ = fit(ensemble)
    fresh = ensemble.reinitialised(state, 5, 4)
    assert not np.any(fresh.step)
    assert not any(np.any(value) for value in fresh.first_moment.values())
    assert not np.array_equal(
        fresh.weights["layer0.v"], ensemble.initial_state(5, OBSERVATION_DIM, ACTION_DIM).weights["layer0.v"]
    )
    assert_same(fresh, ensemble.reinitialised(state, 5, 4))


def test_growing_data_do_not_retrace():
    ensemble = make_ensemble()
    state = None
    for iteration, N in enumerate((23, 40, 61)):
        state, _ = fit(ensemble, N=N, epochs=2, state=state, iteration=iteration)
    (pool,) = ensemble._trainers.values()
    assert max(trainer.tracing_count() for trainer in pool.trainers) == 1


def test_members_side_by_side_are_members_one_by_one(monkeypatch):
    found = []
    for number in (1, 3):
        monkeypatch.setattr(cores, "usable", lambda number=number: number)
        found.append(fit(make_ensemble(), N=61, epochs=3)[0])
    assert_same(*found)


def test_batch_order_is_fixed_unless_reshuffled():
    kept, shuffled = make_ensemble(), make_ensemble(reshuffle_batch_order=True)
    orders = [kept._batch_order(50, 1, iteration, epoch) for iteration in (0, 3) for epoch in (0, 7)]
    assert all(np.array_equal(orders[0], order) for order in orders)
    assert not np.array_equal(shuffled._batch_order(50, 1, 0, 0), shuffled._batch_order(50, 1, 0, 1))


def test_report_tells_epoch_and_loss():
    lines = []
    _, result = fit(make_ensemble(), epochs=2, report=lines.append)
    assert lines[1] == f"model fit epoch 2/2, validation loss {result.valid_loss[1].mean():.4f}"


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("uneven", [False, True])
def test_predict_random_is_each_rows_own_member(jit_compile, uneven):
    ensemble = make_ensemble(num_models=4)
    state, _ = fit(ensemble, epochs=1)
    effective, data = ensemble.effective(state), make_data(40, seed=3)
    member = np.full(40, 2) if uneven else np.random.default_rng(0).integers(0, 4, 40)
    everything = ensemble.predict_all(effective, data.observation, data.action).numpy()
    compiled = tf.function(ensemble.predict_random, jit_compile=jit_compile, autograph=False)
    arguments = [tf.constant(x) for x in (data.observation, data.action, member.astype(np.int32))]
    found = compiled(effective, *arguments)
    np.testing.assert_allclose(found, everything[np.arange(40), :, member], rtol=1e-5, atol=1e-6)
    assert block_capacity(10_000, 5) < 2_200


def test_disagreement_and_one_step_error():
    ensemble = make_ensemble()
    state, _ = fit(ensemble, epochs=2)
    effective, data = ensemble.effective(state), make_data(30, seed=9)
    everything = ensemble.predict_all(effective, data.observation, data.action).numpy()
    found = ensemble.disagreement(effective, data.observation, data.action)
    np.testing.assert_allclose(found, everything.std(axis=-1).mean(axis=-1), rtol=1e-4)
    error = np.sqrt(((everything - data.next_observation[..., None]) ** 2).mean(axis=0)).T
    np.testing.assert_allclose(ensemble.one_step_error(effective, data, rows=7), error, rtol=1e-4)


def test_variants():
    assert MLPDynamicsModel().hidden_sizes == (500, 500)
    assert MLPDynamicsModel().num_models == 1
    ensemble = MetaDynamicsEnsemble(num_ensembles=2, models_per_ensemble=3, hidden_sizes=(5,), batch_size=9)
    state, result = fit(ensemble, epochs=2)
    assert result.valid_loss.shape == (2, 6)
    plain = DynamicsEnsemble(num_models=6, hidden_sizes=(5,))
    data = make_data(10)
    members = plain.predict_all(plain.effective(state), data.observation, data.action).numpy()
    groups = members.reshape(10, OBSERVATION_DIM, 2, 3).mean(axis=-1)
    found = ensemble.predict_all(ensemble.effective(state), data.observation, data.action)
    np.testing.assert_allclose(found, groups, rtol=1e-5, atol=1e-6)


def test_no_normalisation():
    state, _ = fit(make_ensemble(normalize_input=False), epochs=1)
    np.testing.assert_array_equal(state.normalisation.observation_mean, np.zeros(OBSERVATION_DIM))
    np.testing.assert_array_equal(state.normalisation.delta_std, np.ones(OBSERVATION_DIM))


@pytest.mark.parametrize(("ratio", "kind"), [(0.0, "validation"), (1.0, "training")])
def test_an_empty_split_is_refused(ratio, kind):
    with pytest.raises(UserError, match=f"valid_split_ratio {ratio} of 23 transitions leaves no {kind} rows"):
        fit(make_ensemble(valid_split_ratio=ratio))


def test_numbers_that_are_not_finite_stop_the_fit():
    data = make_data(23)
    data.next_observation[4, 1] = np.nan
    with pytest.raises(NonFiniteError, match="dynamics model 0 is not finite in epoch 1"):
        fit(make_ensemble(), data=data)


def test_bad_settings_are_named():
    with pytest.raises(UserError, match=r"DynamicsEnsemble\.num_models"):
        DynamicsEnsemble(num_models=0)
    with pytest.raises(UserError, match=r"BadDynamicsEnsemble\.output_bias_range"):
        BadDynamicsEnsemble(output_bias_range=(1.0, 0.0))
