"""Adaptation and the written-out meta-gradients: by hand, against nested tapes, against finite differences."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from toy_phases import combined, toy_data, toy_phase, toy_policy, toy_weights

from mbmpo import distributions
from mbmpo.meta_objective import Argument, MetaObjective, MiniBatch, Penalties, RandomKey
from mbmpo.objectives import MetaData, Objective, make_phase, split_parameters
from mbmpo.policies import GaussianMLPPolicy
from metarl.experiment.errors import UserError
from metarl.sampling.steps import Steps

LR = 0.3


def mean_rows(x, phase):
    kept = tf.where(phase.valid, x, tf.zeros_like(x))
    return tf.reduce_sum(kept, axis=1) / tf.reduce_sum(tf.cast(phase.valid, tf.float32), axis=1)


def surrogate(kind, policy, weights, phase, clip_eps=0.2):
    logits = policy.logits(weights, phase.observation)
    if kind == "likelihood":
        return -mean_rows(distributions.log_prob(logits, phase.action) * phase.advantage, phase)
    ratio = distributions.likelihood_ratio(logits, phase.logits, phase.action)
    value = ratio * phase.advantage
    if kind == "clipped":
        value = tf.minimum(value, tf.clip_by_value(ratio, 1 - clip_eps, 1 + clip_eps) * phase.advantage)
    return -mean_rows(value, phase)


def kl_rows(policy, weights, phase):
    return distributions.kl_divergence(phase.logits, policy.logits(weights, phase.observation))


def reference(policy, objective, theta, data, penalties, what):
    """The meta-objective by nested tapes: (gradient, per-task losses)."""
    num_tasks = data.post.valid.shape[0]
    with tf.GradientTape() as outer:
        outer.watch(theta)
        weights, rates = split_parameters(theta, LR)
        own = {name: tf.stack([value] * num_tasks) for name, value in weights.items()}
        extras = 0.0
        for k, phase in enumerate(data.pre):
            with tf.GradientTape() as inner:
                inner.watch(own)
                total = tf.reduce_sum(surrogate(objective.inner, policy, own, phase))
            gradient = inner.gradient(total, own, unconnected_gradients=tf.UnconnectedGradients.ZERO)
            if objective.first_order:
                gradient = {name: tf.stop_gradient(value) for name, value in gradient.items()}
            entropy = mean_rows(distributions.entropy(policy.logits(own, phase.observation)), phase)
            extras -= objective.entropy_bonus * entropy
            if objective.inner_penalty:
                extras += penalties.inner[:, k] * mean_rows(kl_rows(policy, own, phase), phase)
            own = {name: value - rates[name] * gradient[name] for name, value in own.items()}
        losses = surrogate(objective.outer, policy, own, data.post, objective.clip_eps) + extras
        if objective.outer_penalty:
            losses += penalties.outer * mean_rows(kl_rows(policy, own, data.post), data.post)
        rows = kl_rows(policy, own, data.post)
        total = tf.reduce_sum(losses) if what == "loss_gradient" else tf.reduce_sum(rows[data.post.valid])
    return outer.gradient(total, theta, unconnected_gradients=tf.UnconnectedGradients.ZERO), losses


CASES = {
    "TRPO": Objective(),
    "entropy": Objective(entropy_bonus=0.3),
    "first order": Objective(first_order=True, entropy_bonus=0.3),
    "step sizes": Objective(trainable_step_sizes=True),
    "VPG": Objective(outer="likelihood"),
    "PPO": Objective(outer="clipped", inner="ratio", inner_penalty=True, entropy_bonus=0.1),
    "PPO, penalties": Objective(outer="ratio", inner="ratio", inner_penalty=True, outer_penalty=True),
    "PPO, first order": Objective(outer="clipped", inner="ratio", inner_penalty=True, first_order=True),
}


SIZES = [*((case, 2, "log") for case in CASES), ("TRPO", 0, "log"), ("PPO", 1, "softplus")]


@pytest.mark.parametrize(("case", "steps", "std"), SIZES)
def test_against_nested_tapes(case, steps, std):
    policy, losses = toy_policy(std_parametrization=std), CASES[case]
    objective = MetaObjective(policy, losses, LR)
    theta = objective.initial_parameters(toy_weights(policy))
    data = toy_data(policy, toy_weights(policy), steps)
    rng = np.random.default_rng(3)
    penalties = Penalties(np.float32(rng.uniform(0.5, 2, (3, steps))), np.float32(rng.uniform(0.5, 2, 3)))
    for what in ("loss_gradient", "kl_gradient")[: 2 if case in ("TRPO", "step sizes") else 1]:
        found = objective.evaluate(what, theta, data, Argument(penalties=penalties))
        expected, expected_losses = reference(policy, losses, theta, data, penalties, what)
        assert found.gradient.keys() == theta.keys()
        largest = max(float(tf.reduce_max(tf.abs(value))) for value in expected.values())
        for name, value in expected.items():
            np.testing.assert_allclose(found.gradient[name], value, 1e-3, 2e-6 * largest, err_msg=f"{what} {name}")
        if what == "loss_gradient":
            np.testing.assert_allclose(found.terms["loss"], expected_losses, 1e-4, 1e-5)


def test_second_order_gradient_against_finite_differences():
    """Without differentiating anything: the loss itself, moved along random directions."""
    policy = toy_policy()
    objective, theta = MetaObjective(policy, Objective(), LR), toy_weights(policy)
    data = toy_data(policy, theta, inner_steps=2)
    gradient = objective.evaluate("loss_gradient", theta, data).gradient
    first_order = MetaObjective(policy, Objective(first_order=True), LR).evaluate("loss_gradient", theta, data).gradient
    rng, eps, misses = np.random.default_rng(0), 3e-3, 0
    for _ in range(6):
        direction = {name: rng.normal(size=value.shape).astype(np.float32) for name, value in theta.items()}
        ends = [
            np.sum(
                objective.evaluate("scalars", {n: theta[n] + s * eps * direction[n] for n in theta}, data).terms[
                    "loss"
                ],
                dtype=np.float64,
            )
            for s in (1.0, -1.0)
        ]
        slope = (ends[0] - ends[1]) / (2 * eps)
        size = float(np.sqrt(sum(np.sum(np.square(value)) for value in gradient.values())))
        along = sum(float(np.sum(gradient[n] * direction[n])) for n in theta)
        assert along == pytest.approx(slope, rel=1e-2, abs=5e-3 * size)
        misses += abs(sum(float(np.sum(first_order[n] * direction[n])) for n in theta) - slope) > 3e-2 * size
    assert misses


def test_inner_step_by_hand():
    """A linear Gaussian policy: d log pi / d mean = (a - mean) / var, d log pi / d log std = (a - mean)^2 / var - 1."""
    rng = np.random.default_rng(0)
    W, b, log_std = rng.normal(size=(2, 1)), rng.normal(size=1), np.array([0.4])
    o, a, adv = rng.normal(size=(7, 2)), rng.normal(size=(7, 1)), rng.normal(size=7)
    mean, var = o @ W + b, np.exp(2 * log_std)
    score = (a - mean) / var
    expected = {
        "mlp0.kernel": W + 0.1 * np.mean(adv[:, None, None] * o[:, :, None] * score[:, None, :], axis=0),
        "mlp0.bias": b + 0.1 * np.mean(adv[:, None] * score, axis=0),
        "log_std": log_std + 0.1 * np.mean(adv[:, None] * ((a - mean) ** 2 / var - 1), axis=0),
    }
    theta = {"mlp0.kernel": W, "mlp0.bias": b, "log_std": log_std}
    theta = {name: tf.constant(value, tf.float32) for name, value in theta.items()}
    steps = Steps(o[None], a[None], adv[None], np.zeros((1, 7, 2)), np.zeros((1, 7)), np.ones((1, 7), bool), None)
    phase = make_phase(Steps(*(x if x is None else tf.constant(x) for x in steps)), tf.constant(adv[None]))
    found = MetaObjective(GaussianMLPPolicy(), Objective(), 0.1).adapt(theta, None, phase)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name][0], value, 1e-5, 1e-6)


def test_padding_counts_for_nothing_whatever_it_holds():
    policy = toy_policy()
    theta = toy_weights(policy)
    clean = toy_phase(policy, theta)
    dirty = {name: tf.where(clean.valid if x.shape.rank == 2 else clean.valid[..., None], x, np.nan)
             for name, x in clean._asdict().items() if name != "valid"}  # fmt: skip
    steps = Steps(dirty["observation"], dirty["action"], None, dirty["logits"], None, clean.valid, None)
    phase = make_phase(steps, dirty["advantage"])
    for name, value in phase._asdict().items():
        np.testing.assert_array_equal(value, getattr(clean, name))


def test_tasks_are_adapted_by_themselves_in_every_inner_step():
    """O-28: the second inner step differentiates each task at its own parameters."""
    policy = toy_policy()
    theta = toy_weights(policy)
    objective = MetaObjective(policy, Objective(), LR)
    phases = [toy_phase(policy, theta, seed=seed) for seed in (0, 1)]
    together = objective.adapt(theta, objective.adapt(theta, None, phases[0]), phases[1])
    for task in range(3):
        own = None
        for phase in phases:
            alone = type(phase)(*(x[task : task + 1] for x in phase))
            own = objective.adapt(theta, own, alone)
        for name in theta:
            np.testing.assert_allclose(together[name][task], own[name][0], 1e-5, 1e-6)


def test_before_the_step_the_ratio_is_one_and_the_divergence_zero():
    policy = toy_policy()
    theta = toy_weights(policy)
    objective = MetaObjective(policy, Objective(), LR)
    pre = toy_phase(policy, theta, shift=0.0)
    post = toy_phase(policy, objective.adapt(theta, None, pre), shift=0.0, seed=1)
    terms = objective.evaluate("scalars", theta, MetaData((pre,), post)).terms
    rows = np.asarray(post.valid)
    np.testing.assert_allclose(terms["kl"], 0.0, atol=1e-5)
    np.testing.assert_allclose(terms["inner_kl"], 0.0, atol=1e-6)
    np.testing.assert_allclose(terms["loss"], -np.asarray(post.advantage).sum(1) / rows.sum(1), 1e-4, 1e-5)
    np.testing.assert_array_equal(terms["count"], rows.sum(1))


def test_constraint_before_adaptation():
    policy = toy_policy()
    theta = toy_weights(policy)
    data = toy_data(policy, theta, 2)
    objective = MetaObjective(policy, Objective(constraint="pre_update"), LR)
    with tf.GradientTape() as tape:
        tape.watch(theta)
        total = tf.reduce_sum(kl_rows(policy, theta, data.pre[0])[data.pre[0].valid])
    expected = tape.gradient(total, theta)
    found = objective.evaluate("kl_gradient", theta, data)
    for name, value in expected.items():
        np.testing.assert_allclose(found.gradient[name], value, 1e-4, 1e-4)
    for what in ("kl_gradient", "scalars", "loss_gradient"):
        terms = objective.evaluate(what, theta, data).terms
        np.testing.assert_allclose(np.sum(terms["kl"]), total, 1e-5)
        assert np.sum(terms["count"]) == np.sum(np.asarray(data.pre[0].valid))


def test_frozen_standard_deviation():
    policy = toy_policy(learn_std=False)
    theta = toy_weights(policy)
    objective = MetaObjective(policy, Objective(), LR)
    data = toy_data(policy, theta)
    np.testing.assert_array_equal(objective.evaluate("loss_gradient", theta, data).gradient["log_std"], 0.0)
    np.testing.assert_array_equal(objective.adapt(theta, None, data.pre[0])["log_std"][1], theta["log_std"])


def test_inner_gradient_is_the_policy_gradient_without_adaptation():
    policy = toy_policy()
    theta = toy_weights(policy)
    data = toy_data(policy, theta)
    found = MetaObjective(policy, CASES["PPO"], LR).evaluate("inner_gradient", theta, data)
    with tf.GradientTape() as tape:
        tape.watch(theta)
        total = tf.reduce_sum(surrogate("ratio", policy, theta, data.pre[0]))
    for name, value in tape.gradient(total, theta).items():
        np.testing.assert_allclose(found.gradient[name], value, 1e-4, 1e-5)


def part_of(data, start, stop):
    return tf.nest.map_structure(lambda x: x[start:stop], data)


def test_shards_together_are_the_whole():
    policy = toy_policy()
    theta = toy_weights(policy)
    objective = MetaObjective(policy, CASES["PPO, penalties"], LR)
    data = toy_data(policy, theta)
    argument = Argument(
        penalties=Penalties(np.array([[1.0], [2.0], [3.0]]), np.array([3.0, 2.0, 1.0])),
        minibatch=MiniBatch(RandomKey(1, 2, "step_0"), 0, 1, 4, 2),
    )
    for what, given in itertools.product(("loss_gradient", "scalars"), (argument, argument._replace(minibatch=None))):
        whole = objective.evaluate(what, theta, data, given)
        parts = [
            objective.evaluate(what, theta, part_of(data, a, b), given.part(a, b), range(a, b))
            for a, b in ((0, 2), (2, 3))
        ]
        together = combined(parts)
        for name, value in whole.terms.items():
            np.testing.assert_allclose(together.terms[name], value, 1e-5, 1e-6)
        for name, value in (whole.gradient or {}).items():
            np.testing.assert_allclose(together.gradient[name], value, 1e-4, 1e-6)


def test_minibatches_of_an_epoch_share_no_row_and_every_epoch_shuffles():
    policy = toy_policy()
    theta = toy_weights(policy)
    objective = MetaObjective(policy, Objective(), LR)
    data = toy_data(policy, theta)
    key = RandomKey(1, 2, "step_0")
    rows = {
        (epoch, position): objective._rows(data, MiniBatch(key, epoch, position, 4, 2), None)
        for epoch in (0, 1)
        for position in (0, 1)
    }
    for k, phase in enumerate([*data.pre, data.post]):
        for task in range(3):
            sets = {name: taken[task, k][counting[task, k]] for name, (taken, counting) in rows.items()}
            for taken in sets.values():
                assert len(set(taken)) == 4
                assert np.all(np.asarray(phase.valid)[task, taken])
            assert not set(sets[0, 0]) & set(sets[0, 1])
    assert not np.array_equal(rows[0, 0][0], rows[1, 0][0])
    whole = objective.evaluate("scalars", theta, data, Argument(minibatch=MiniBatch(key, 0, 0, 4, 2)))
    np.testing.assert_array_equal(whole.terms["rows"], 4.0)


def test_each_evaluation_is_traced_once():
    policy = toy_policy()
    objective = MetaObjective(policy, Objective(), LR)
    for seed in range(3):
        theta = toy_weights(policy, seed)
        data = toy_data(policy, theta, seed=seed, counts=(12 - seed, 9, 15))
        for what in ("loss_gradient", "kl_gradient", "scalars"):
            objective.evaluate(what, theta, data)
    assert [objective.tracing_counts()[w] for w in ("loss_gradient", "kl_gradient", "scalars")] == [1, 1, 1]


def test_unknown_evaluation():
    policy = toy_policy()
    with pytest.raises(UserError, match="did you mean 'loss_gradient'"):
        MetaObjective(policy, Objective(), LR).evaluate("loss_gradien", toy_weights(policy), None)
