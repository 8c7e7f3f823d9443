"""Reading golden files of the MB-MPO family into the project's structures."""

import re

import numpy as np
import tensorflow as tf
from golden_tools import group

from mbmpo.policies import GaussianMLPPolicy
from mbmpo.surrogates import Phase


def names_of(theta):
    """[(the file's name, the project's name)] in the file's flattening order W0, b0, W1, ..., log_std."""
    depth = sum(re.fullmatch(r"W\d+", name) is not None for name in theta)
    pairs = [
        (f"{short}{i}", f"mlp{i}.{long}") for i in range(depth) for short, long in (("W", "kernel"), ("b", "bias"))
    ]
    return [*pairs, ("log_std", "log_std")]


def weights_of(golden, prefix):
    """Weights by the project's names."""
    arrays = group(golden, prefix)
    return {ours: tf.constant(arrays[theirs]) for theirs, ours in names_of(arrays)}


def stacked_models(golden, prefix):
    """Weights of an ensemble, [E, ...] by the project's names, from `<prefix>model<k>.`."""
    count = len({m[1] for m in (re.match(re.escape(prefix) + r"model(\d+)\.", name) for name in golden) if m})
    models = [group(golden, f"{prefix}model{k}.") for k in range(count)]
    parts = {"V": "v", "g": "g", "b": "bias"}
    return {
        f"layer{name[1:]}.{parts[name[0]]}": tf.constant(np.stack([np.float32(model[name]) for model in models]))
        for name in models[0]
    }


def flat(weights):
    """Weights as one vector, in the file's order."""
    depth = sum(name.endswith(".kernel") for name in weights)
    names = [f"mlp{i}.{part}" for i in range(depth) for part in ("kernel", "bias")]
    return np.concatenate([np.asarray(weights[name]).reshape(-1) for name in [*names, "log_std"]])


def unflat(vector, like):
    """The weights that a vector in the file's order holds."""
    depth = sum(name.endswith(".kernel") for name in like)
    result, start = {}, 0
    for name in [f"mlp{i}.{part}" for i in range(depth) for part in ("kernel", "bias")] + ["log_std"]:
        size = int(np.prod(like[name].shape))
        result[name] = tf.constant(vector[start : start + size].reshape(like[name].shape))
        start += size
    return result


def policy_of(weights):
    depth = sum(name.endswith(".kernel") for name in weights)
    return GaussianMLPPolicy(hidden_sizes=[weights[f"mlp{i}.kernel"].shape[1] for i in range(depth - 1)])


def num_tasks_of(golden, prefix):
    return len({m[1] for m in (re.match(re.escape(prefix) + r"task(\d+)\.obs$", name) for name in golden) if m})


def phase_of(golden, prefix, padding=3):
    """Phase [M, S] of `<prefix>task<i>.`, padded."""
    tasks = [group(golden, f"{prefix}task{i}.") for i in range(num_tasks_of(golden, prefix))]
    return phase_of_tasks(tasks, padding)


def phase_of_tasks(tasks, padding=3):
    capacity = max(len(task["adv"]) for task in tasks) + padding

    def padded(values):
        return tf.constant(
            np.stack([np.concatenate([x, np.zeros((capacity - len(x), *x.shape[1:]), x.dtype)]) for x in values])
        )

    return Phase(
        observation=padded([task["obs"] for task in tasks]),
        action=padded([task["act"] for task in tasks]),
        logits=padded([np.concatenate([task["old_mean"], task["old_log_std"]], axis=1) for task in tasks]),
        advantage=padded([task["adv"] for task in tasks]),
        valid=tf.constant(np.stack([np.arange(capacity) < len(task["adv"]) for task in tasks])),
    )


def assert_weights(found, golden, prefix, rtol=1e-4, atol=0.0, atol_of_largest=1e-5):
    """Entry by entry; `atol_of_largest` is relative to the largest entry of all arrays."""
    arrays = group(golden, prefix)
    largest = max(float(np.max(np.abs(arrays[theirs]))) for theirs, _ in names_of(arrays))
    for theirs, ours in names_of(arrays):
        np.testing.assert_allclose(
            np.asarray(found[ours]), arrays[theirs], rtol, atol + atol_of_largest * largest, err_msg=f"{prefix}{theirs}"
        )
