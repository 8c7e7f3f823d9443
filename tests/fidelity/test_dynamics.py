"""The ensemble against the original program (MB-MPO specification, section 2; golden README, mbmpo_dynamics)."""

import re
from types import SimpleNamespace

import mbmpo_golden_tools as tools
import numpy as np
import pytest
import tensorflow as tf
from golden_tools import group

from mbmpo.dynamics import DynamicsEnsemble, EarlyStopping, networks
from mbmpo.dynamics.ensemble import EnsembleState


def _ensemble(weights, golden, batch_size=500):
    depth = networks.depth_of(weights)
    return DynamicsEnsemble(
        num_models=weights["layer0.v"].shape[0],
        hidden_sizes=[weights[f"layer{i}.v"].shape[2] for i in range(depth - 1)],
        weight_normalization="layer0.g" in weights,
        learning_rate=float(golden.get("cfg.lr", 1e-3)),
        batch_size=batch_size,
        persistency=1.0,
    )


def _state(ensemble, weights, golden):
    state = ensemble.initial_state(0, golden["fit1.obs"].shape[1], golden["fit1.act"].shape[1])
    return state._replace(weights=weights)


def _data(golden, prefix):
    return SimpleNamespace(
        observation=golden[f"{prefix}obs"],
        action=golden[f"{prefix}act"],
        next_observation=golden[f"{prefix}obs_next"],
    )


def _assert_weights(state: EnsembleState, golden, prefix):
    for name, expected in tools.stacked_models(golden, prefix).items():
        expected = expected.numpy()
        np.testing.assert_allclose(state.weights[name], expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def _fit(ensemble, state, golden, prefix, epochs, **given):
    return ensemble.fit(
        state,
        _data(golden, prefix),
        seed=1,
        iteration=0,
        max_epochs=epochs,
        permutations=golden[f"{prefix}perm"],
        **given,
    )


def test_forward_without_normalisation(dynamics_golden):
    weights = tools.stacked_models(dynamics_golden, "init.")
    x = np.concatenate([dynamics_golden["raw.obs_normalised"], dynamics_golden["raw.act_normalised"]], axis=1)
    E = weights["layer0.v"].shape[0]
    found = networks.predict(networks.effective_layers(weights), tf.constant(np.stack([x] * E)))
    expected = dynamics_golden["raw.delta_normalised_pred"]
    np.testing.assert_allclose(np.moveaxis(found.numpy(), 0, -1), expected, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def fits(dynamics_golden):
    """(prefix, ensemble, state afterwards, report) of all fits, each from where the one before ended."""
    weights = tools.stacked_models(dynamics_golden, "init.")
    ensemble = _ensemble(weights, dynamics_golden)
    state, found = _state(ensemble, weights, dynamics_golden), []
    while f"fit{len(found) + 1}.perm" in dynamics_golden:
        prefix = f"fit{len(found) + 1}."
        epochs = len(dynamics_golden[f"{prefix}valid_loss"])
        assert epochs == int(dynamics_golden.get(f"{prefix}epochs", epochs))
        state, result = _fit(ensemble, state, dynamics_golden, prefix, epochs)
        found.append((prefix, ensemble, state, result))
    return found


def test_fit(dynamics_golden, fits):
    for prefix, _, state, result in fits:
        for ours, theirs in (("observation", "obs"), ("action", "act"), ("delta", "delta")):
            for kind in ("mean", "std"):
                found = getattr(state.normalisation, f"{ours}_{kind}")
                expected = dynamics_golden[f"{prefix}norm.{theirs}.{kind}"]
                np.testing.assert_allclose(found, expected, rtol=1e-6, err_msg=f"{prefix}{theirs}")
        np.testing.assert_allclose(result.train_loss, dynamics_golden[f"{prefix}train_loss"], 1e-4, err_msg=prefix)
        np.testing.assert_allclose(result.valid_loss, dynamics_golden[f"{prefix}valid_loss"], 1e-4, err_msg=prefix)
        _assert_weights(state, dynamics_golden, f"{prefix}weights_after.")


def test_predictions(dynamics_golden, fits):
    for prefix, ensemble, state, _ in fits:
        effective = ensemble.effective(state)
        expected = group(dynamics_golden, f"{prefix}predict.")
        rows = tf.constant(expected["obs"], tf.float32), tf.constant(expected["act"], tf.float32)
        member = tf.constant(expected["rand_model_index"], tf.int32)
        found = {
            "all": ensemble.predict_all(effective, *rows),
            "mean": ensemble.predict_mean(effective, *rows),
            "model_batches": ensemble.predict_model_batches(effective, *rows),
            "rand": ensemble.predict_random(effective, *rows, member),
            "std": ensemble.predict_std(effective, *rows),
        }
        scale = np.abs(expected["all"]).max()
        for name, value in found.items():
            np.testing.assert_allclose(value, expected[name], rtol=1e-4, atol=1e-6 * scale, err_msg=f"{prefix}{name}")


def test_mini_batches(dynamics_golden):
    if "mini.perm" not in dynamics_golden:
        pytest.skip("the file has no fit in mini-batches")
    weights = tools.stacked_models(dynamics_golden, "mini.init.")
    ensemble = _ensemble(weights, dynamics_golden, int(dynamics_golden["mini.batch_size"]))
    order = dynamics_golden["mini.batch_order"]
    state, result = _fit(
        ensemble,
        _state(ensemble, weights, dynamics_golden),
        dynamics_golden,
        "mini.",
        len(order),
        batch_order=order,
    )
    if "mini.batch_rows" in dynamics_golden:
        num_train = ensemble.num_train_rows(len(dynamics_golden["mini.obs"]))
        sizes = np.minimum(ensemble.batch_size, num_train - ensemble.batch_size * order)
        np.testing.assert_array_equal(sizes, dynamics_golden["mini.batch_rows"])
    np.testing.assert_allclose(result.batch_loss, dynamics_golden["mini.train_loss"], rtol=1e-4)
    np.testing.assert_allclose(result.valid_loss, dynamics_golden["mini.valid_loss"], rtol=1e-4)
    _assert_weights(state, dynamics_golden, "mini.weights_after.")


def test_early_stopping(early_stopping_golden):
    cases = {m[1] for m in (re.match(r"stop\.(\w+)\.valid_loss$", name) for name in early_stopping_golden) if m}
    assert cases
    for case in sorted(cases):
        given = group(early_stopping_golden, f"stop.{case}.")
        losses = given["valid_loss"]
        stopping = EarlyStopping(losses.shape[1], float(given["persistency"]), int(given["max_epochs"]))
        trained = []
        while stopping.active.any():
            trained.append(int(stopping.active.sum()))
            stopping.update(losses[stopping.epochs_run])
        np.testing.assert_array_equal(stopping.last_epoch, given["last_epoch"], err_msg=case)
        assert stopping.epochs_run == int(given["epochs_run"]), case
        np.testing.assert_array_equal(trained, given["models_trained_per_epoch"], err_msg=case)
        assert stopping.mean_last_epoch == pytest.approx(float(given["AvgEpochsPerModel"])), case
