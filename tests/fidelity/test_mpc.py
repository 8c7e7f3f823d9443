"""Random shooting against the original's choices (MB-MPO specification, section 6.2)."""

import itertools
import re

import numpy as np
import pytest
import tensorflow as tf
from golden_tools import group

from mbmpo.dynamics import networks
from mbmpo.dynamics.normalisation import EPSILON
from mbmpo.planning import best_candidate, candidate_values


def ensemble_of(golden):
    """(observation, action, member) -> next observation, from the file's weights and statistics."""
    arrays = group(golden, "weights.")
    models = sorted({int(m[1]) for m in (re.match(r"model(\d+)\.", name) for name in arrays) if m})
    members = []
    for model in models:
        own = group(arrays, f"model{model}.")
        ours = {"V": "v", "g": "g", "b": "bias"}
        weights = {f"layer{name[1:]}.{ours[name[0]]}": tf.constant(value) for name, value in own.items()}
        members.append(networks.effective_layers(weights))
    norm = group(golden, "norm.")

    def predict(o, a, member):
        parts = [(x - norm[f"{n}.mean"]) / (norm[f"{n}.std"] + EPSILON) for x, n in ((o, "obs"), (a, "act"))]
        x = tf.cast(tf.concat(parts, axis=1), members[0][0].kernel.dtype)
        every = tf.stack([networks.predict(layers, x) for layers in members], axis=1)
        delta = tf.gather(every, member, batch_dims=1)
        return o + tf.cast(delta, o.dtype) * (norm["delta.std"] + EPSILON) + norm["delta.mean"]

    return predict


def assert_choices(golden):
    obs, candidates = golden["obs"], golden["candidates"]
    kind = golden["weights.model0.V0"].dtype
    norm = {name: value.astype(kind) for name, value in golden.items() if name.startswith("norm.")}
    value = candidate_values(
        ensemble_of({**golden, **norm}),
        lambda o, a, following: -tf.reduce_sum(tf.square(following), axis=-1),
        tf.constant(obs.astype(kind)),
        tf.constant(candidates.astype(kind)),
        tf.constant(golden["model_index"].astype(np.int32)),
        float(golden.get("cfg.discount", golden.get("discount", 0.99))),
    )
    chosen = best_candidate(value).numpy()
    np.testing.assert_array_equal(chosen, np.asarray(golden["chosen_candidate"]).reshape(-1))
    first = candidates[0].reshape(len(obs), -1, candidates.shape[-1])
    np.testing.assert_allclose(first[np.arange(len(obs)), chosen], golden["chosen"], rtol=1e-6)


def test_chosen_actions(mpc_golden):
    assert_choices(mpc_golden)


def naive_file(rng, states=3, per_state=40, horizon=6, models=3, dim=5):
    """A file of the layout, computed row by row in float64."""
    file = {
        "obs": rng.standard_normal((states, dim)),
        "candidates": rng.uniform(-1, 1, (horizon, states * per_state, 2)),
        "model_index": rng.integers(models, size=(horizon, states * per_state)),
    }
    for name, width in (("obs", dim), ("act", 2), ("delta", dim)):
        file[f"norm.{name}.mean"], file[f"norm.{name}.std"] = rng.standard_normal(width), rng.uniform(0.5, 2, width)
    for model in range(models):
        for i, shape in enumerate(itertools.pairwise((dim + 2, 16, 16, dim))):
            file[f"weights.model{model}.V{i}"] = rng.standard_normal(shape)
            file[f"weights.model{model}.g{i}"] = rng.uniform(0.5, 1.5, shape[1])
            file[f"weights.model{model}.b{i}"] = rng.standard_normal(shape[1])

    def following(o, a, model):
        x = np.concatenate(
            [(z - file[f"norm.{n}.mean"]) / (file[f"norm.{n}.std"] + 1e-10) for z, n in ((o, "obs"), (a, "act"))]
        )
        for i in range(3):
            v, g, b = (file[f"weights.model{model}.{n}{i}"] for n in "Vgb")
            x = x @ (v * g / np.linalg.norm(v, axis=0)) + b
            x = np.maximum(x, 0) if i < 2 else x
        return o + x * (file["norm.delta.std"] + 1e-10) + file["norm.delta.mean"]

    best = []
    for state in range(states):
        values = []
        for row in range(state * per_state, (state + 1) * per_state):
            o, value = file["obs"][state], 0.0
            for t in range(horizon):
                o = following(o, file["candidates"][t, row], file["model_index"][t, row])
                value -= 0.99**t * np.sum(o**2)
            values.append(value)
        best.append(int(np.argmax(values)))
    file["chosen_candidate"] = np.array(best)
    file["chosen"] = np.stack([file["candidates"][0, s * per_state + c] for s, c in enumerate(best)])
    return file


@pytest.mark.parametrize("kind", [np.float64, np.float32])
def test_the_layout_is_read_as_a_naive_computation_writes_it(tmp_path, kind):
    file = naive_file(np.random.default_rng(1))
    file = {
        name: value if name in ("chosen_candidate", "model_index") else value.astype(kind)
        for name, value in file.items()
    }
    np.savez(tmp_path / "mbmpo_mpc.npz", **file)
    with np.load(tmp_path / "mbmpo_mpc.npz", allow_pickle=False) as arrays:
        loaded = {name: arrays[name] for name in arrays.files}
    assert_choices(loaded)
    loaded["chosen_candidate"] = (loaded["chosen_candidate"] + 1) % 40
    with pytest.raises(AssertionError):
        assert_choices(loaded)
