"""Reading golden files of the TESP family into the project's structures; all sizes are told from the arrays."""

import itertools
import re

import numpy as np
import tensorflow as tf

from metarl.sampling.steps import Steps
from tesp.methods import MAESN, MAML, TESP, EncoderInput, MetaParameters, MetaSGD, TESPAdaptivePolicy
from tesp.objectives import Round


def method_of(golden):
    """The method that produced a file, told from its arrays."""
    config = {name: float(golden[f"cfg.{name}"]) for name in ("inner_lr", "inner_lr_bound", "eta")}
    layers = itertools.takewhile(lambda name: name in golden, (f"init.w.mlp{i}.kernel" for i in itertools.count()))
    *hidden_sizes, _ = (golden[name].shape[1] for name in layers)
    bounded = np.isfinite(config["inner_lr_bound"])
    rates = {"inner_lr_bound": config["inner_lr_bound"] if bounded else None, "inner_lr": config["inner_lr"]}
    if "init.w.z" in golden:
        dim = golden["init.w.z"].shape[-1]
        return MAESN(hidden_sizes=hidden_sizes, embedding_dim=dim, embedding_coeff=config["eta"], **rates)
    if "init.w.gru.kernel" in golden:
        kind = TESPAdaptivePolicy if "init.alpha.mlp0.kernel" in golden else TESP
        return kind(
            hidden_sizes=hidden_sizes,
            gru_units=golden["init.w.gru.recurrent_kernel"].shape[0],
            embedding_dim=golden["init.w.proj.kernel"].shape[1],
            embedding_coeff=config["eta"],
            **rates,
        )
    if "init.alpha.mlp0.kernel" in golden:
        return MetaSGD(hidden_sizes=hidden_sizes, **rates)
    return MAML(hidden_sizes=hidden_sizes, inner_lr=config["inner_lr"])


def task_names(golden, letter):
    """The tasks of an adaptation ("t0", "t1", ...) or of a frozen set ("u0", ...)."""
    found = {name.partition(".")[0] for name in golden if re.match(rf"{letter}\d+\.P\.obs$", name)}
    return sorted(found, key=lambda name: int(name[1:]))


def fast_updates_of(golden):
    """K."""
    return sum(bool(re.fullmatch(r"t0\.D\d+\.obs", name)) for name in golden)


def group(golden, prefix):
    """The arrays below a prefix, by the rest of their names."""
    return {name[len(prefix) :]: value for name, value in golden.items() if name.startswith(prefix)}


def parameters_of(golden, prefix, method):
    """MetaParameters stored below `<prefix>w.` and `<prefix>alpha.`."""
    weights, rates = group(golden, f"{prefix}w."), group(golden, f"{prefix}alpha.")
    inner_names, shared_names = (set(names) for names in method.initial_variables(0, 5, 2))
    assert set(weights) == inner_names | shared_names
    assert set(rates) == (inner_names if method.adaptive_inner_lr else set())

    def pick(source, names):
        # A latent vector may be stored as a row.
        return {name: tf.constant(source[name].reshape(-1) if name == "z" else source[name]) for name in names}

    return MetaParameters(pick(weights, inner_names), pick(weights, shared_names), pick(rates, set(rates)))


def accumulated_of(golden, prefixes):
    """G by name with a leading task axis, from `<prefix>w.<name>` of each task."""
    trees = [group(golden, f"{prefix}w.") for prefix in prefixes]
    return {
        name: tf.constant(np.stack([tree[name].reshape(-1) if name == "z" else tree[name] for tree in trees]))
        for name in trees[0]
    }


def steps_of(batches, capacity=None):
    """Steps [M, S] from one ragged batch per task."""
    capacity = capacity or max(len(batch["rewards"]) for batch in batches) + 3
    sizes = {"obs": batches[0]["obs"].shape[1], "actions": batches[0]["actions"].shape[1]}
    shape = (len(batches), capacity)
    steps = Steps(
        observation=np.zeros((*shape, sizes["obs"]), np.float32),
        action=np.zeros((*shape, sizes["actions"]), np.float32),
        reward=np.zeros(shape, np.float32),
        logits=np.zeros((*shape, 2 * sizes["actions"]), np.float32),
        time=np.zeros(shape, np.int32),
        valid=np.zeros(shape, bool),
        last=np.zeros(shape, bool),
    )
    for task, batch in enumerate(batches):
        n = len(batch["rewards"])
        ids = batch["eps_id"]
        last = np.append(ids[1:] != ids[:-1], True)
        starts = np.concatenate([[0], np.flatnonzero(last)[:-1] + 1])
        steps.observation[task, :n] = batch["obs"]
        steps.action[task, :n] = batch["actions"]
        steps.reward[task, :n] = batch["rewards"]
        steps.logits[task, :n] = batch["logits"]
        steps.time[task, :n] = np.arange(n) - np.repeat(starts, np.diff(np.append(starts, n)))
        steps.valid[task, :n] = True
        steps.last[task, :n] = last
    return steps


def advantages_of(batches, capacity):
    advantage = np.zeros((len(batches), capacity), np.float32)
    for task, batch in enumerate(batches):
        advantage[task, : len(batch["advantages"])] = batch["advantages"]
    return tf.constant(advantage)


def split_episodes(batch):
    """[(return, features [T, F])] of a ragged group, in the order stored."""
    ids = batch["eps_id"]
    cuts = np.flatnonzero(ids[1:] != ids[:-1]) + 1
    features = np.concatenate([batch["obs"], batch["logits"], batch["rewards"][:, None]], axis=1)
    rewards = np.split(batch["rewards"], cuts)
    return [(float(np.sum(r)), f) for r, f in zip(rewards, np.split(features, cuts), strict=True)]


def episode_starts(batch):
    """[(first row, features [T, F])] of the episodes of a ragged group."""
    ids = batch["eps_id"]
    starts = np.concatenate([[0], np.flatnonzero(ids[1:] != ids[:-1]) + 1])
    return [(start, features) for start, (_, features) in zip(starts, split_episodes(batch), strict=True)]


def batch_prefixes(golden, task):
    """The prefixes of a task's sampled batches: warm-up and adaptation rounds."""
    names = [f"{task}.W.", *(f"{task}.D{k}." for k in range(fast_updates_of(golden)))]
    return [name for name in names if f"{name}obs" in golden]


def room_of(golden):
    """(episodes, steps) that hold every buffer of a file with room to spare; one shape, compiled once."""
    ids = [value for name, value in golden.items() if re.search(r"buffer\d*\.eps_id$", name)]
    lengths = [np.unique(i, return_counts=True)[1] for i in ids]
    return max(map(len, lengths)) + 1, max(map(max, lengths)) + 2


def capacity_of(golden):
    """Steps that hold every batch of a file, with padding behind the longest; one shape, compiled once."""
    return max(len(value) for name, value in golden.items() if name.endswith(".actions")) + 3


def encoder_input_of(golden, prefixes):
    """EncoderInput from one stored buffer per task; None for methods without."""
    if f"{prefixes[0]}.obs" not in golden:
        return None
    buffers = [group(golden, f"{prefix}.") for prefix in prefixes]
    episodes = [split_episodes(buffer) for buffer in buffers]
    count, horizon = room_of(golden)
    features = np.zeros((len(buffers), count, horizon, episodes[0][0][1].shape[1]), np.float32)
    lengths = np.zeros((len(buffers), count), np.int32)
    for task, found in enumerate(episodes):
        for slot, (_, one) in enumerate(found):
            features[task, slot, : len(one)] = one
            lengths[task, slot] = len(one)
    return EncoderInput(tf.constant(features), tf.constant(lengths))


def round_of(golden, batches, episodes=None):
    """A Round from stored batches, with their advantages."""
    steps = steps_of(batches, capacity_of(golden))
    advantage = advantages_of(batches, steps.reward.shape[1])
    return Round(tf.nest.map_structure(tf.constant, steps), advantage, episodes)


def assert_close(actual, expected, rtol=1e-4, atol_of_largest=1e-6, err_msg=""):
    """The golden files' tolerance: rtol, and atol relative to the largest entry."""
    expected = np.asarray(expected)
    largest = np.max(np.abs(expected)) if expected.size else 0.0
    np.testing.assert_allclose(
        np.asarray(actual).reshape(expected.shape), expected, rtol=rtol, atol=atol_of_largest * largest, err_msg=err_msg
    )
