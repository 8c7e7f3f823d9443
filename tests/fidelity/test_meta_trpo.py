"""Policy, adaptation and the meta-TRPO step against numbers of MB-MPO's original program."""

import mbmpo_golden_tools as tools
import numpy as np
import pytest
import tensorflow as tf
from golden_tools import group

from mbmpo import distributions
from mbmpo.meta_objective import MetaObjective
from mbmpo.meta_updates import MetaTRPO, mean_gradient, mean_kl, mean_term
from mbmpo.objectives import MetaData
from metarl.optim.trust_region import finite_difference_eps, flatten, trust_region_step, unflatten


@pytest.fixture(scope="module")
def golden(meta_trpo_golden):
    return meta_trpo_golden


@pytest.fixture(scope="module")
def theta(golden):
    return tools.weights_of(golden, "theta.")


@pytest.fixture(scope="module")
def pre(golden):
    found = []
    while f"pre{len(found)}.task0.obs" in golden:
        found.append(tools.phase_of(golden, f"pre{len(found)}."))
    assert len(found) == int(golden.get("cfg.inner_steps", len(found)))
    return tuple(found)


def inner_lr_of(golden):
    for name in ("cfg.inner_lr", "cfg.alpha", "inner_lr", "alpha"):
        if name in golden:
            return float(golden[name])
    return 0.1


def objective_of(golden, theta, **kwargs):
    return MetaTRPO(**kwargs).make_objective(tools.policy_of(theta), inner_lr=inner_lr_of(golden))


@pytest.fixture(scope="module")
def objective(golden, theta):
    return objective_of(golden, theta)


def cases_of(golden):
    return [case for case in ("exact", "pert") if f"{case}.loss" in golden]


def evaluation(objective, golden, pre, case):
    data = MetaData(pre, tools.phase_of(golden, f"{case}.post."))
    return lambda what, theta, argument=None: objective.evaluate(what, theta, data, argument)


def test_distribution(golden, theta):
    policy, case = tools.policy_of(theta), group(golden, "dist.")
    if not case:
        pytest.skip("the file has no policy quantities")
    logits = policy.logits(theta, tf.constant(case["obs"])[tf.newaxis])[0]
    mean, log_std = tf.split(logits, 2, axis=-1)
    np.testing.assert_allclose(mean, case["mean"], 1e-4, 1e-6)
    np.testing.assert_allclose(log_std, case["log_std"], 1e-6)
    np.testing.assert_allclose(distributions.log_prob(logits, case["act"]), case["loglik"], 1e-4, 1e-5)
    old = np.concatenate([case["old_mean"], case["old_log_std"]], axis=1)
    np.testing.assert_allclose(distributions.kl_divergence(old, logits), case["kl_old_new"], 1e-4, 1e-6)
    np.testing.assert_allclose(distributions.entropy(logits), case["entropy"], 1e-5)
    np.testing.assert_allclose(distributions.likelihood_ratio(logits, old, case["act"]), case["ratio"], 1e-4)
    np.testing.assert_allclose(policy.log_std(case["floor.log_std_param"]), case["floor.log_std_out"], 1e-6)


def test_adaptation(golden, theta, objective, pre):
    weights = None
    for j, phase in enumerate(pre):
        weights = objective.adapt(theta, weights, phase)
        for task in range(phase.valid.shape[0]):
            one = {name: value[task] for name, value in weights.items()}
            tools.assert_weights(one, golden, f"adapted{j + 1}.task{task}.", 1e-4, atol_of_largest=1e-6)


def test_loss_and_gradients(golden, theta, objective, pre):
    for case in cases_of(golden):
        evaluate = evaluation(objective, golden, pre, case)
        found = evaluate("loss_gradient", theta)
        np.testing.assert_allclose(mean_term(found, "loss"), golden[f"{case}.loss"], 1e-4, 1e-6)
        np.testing.assert_allclose(mean_kl(found), golden[f"{case}.kl"], 1e-4, 1e-6)
        tools.assert_weights(mean_gradient(found), golden, f"{case}.grad.")
        kl = evaluate("kl_gradient", theta)
        np.testing.assert_allclose(mean_kl(kl), golden[f"{case}.kl"], 1e-4, 1e-6)
        rows = float(np.sum(kl.terms["count"]))
        gradient = {name: np.asarray(value) / rows for name, value in kl.gradient.items()}
        tools.assert_weights(gradient, golden, f"{case}.kl_grad.", atol=1e-4 if case == "exact" else 0.0)


def test_entropy_bonus(golden, theta, pre):
    bonus = float(golden.get("cfg.entropy_bonus", 0.1))
    objective = objective_of(golden, theta, entropy_bonus=bonus)
    for case in cases_of(golden):
        if f"ent.{case}.loss" not in golden:
            continue
        found = evaluation(objective, golden, pre, case)("loss_gradient", theta)
        np.testing.assert_allclose(mean_term(found, "loss"), golden[f"ent.{case}.loss"], 1e-4, 1e-6)
        tools.assert_weights(mean_gradient(found), golden, f"ent.{case}.grad.")


def in_file_order(product, theta):
    """A product of vectors in `metarl.optim.trust_region`'s order, for vectors in the file's."""

    def ordered(vector):
        return tools.flat(unflatten(product(flatten(tools.unflat(vector, theta))), theta))

    return ordered


@pytest.mark.parametrize(("kind", "name"), [("fd_eps_one", "fd"), ("exact", "exact")])
def test_hessian_product(golden, theta, objective, pre, kind, name):
    for case in cases_of(golden):
        update = MetaTRPO(hvp=kind)
        product = in_file_order(update.product(theta, evaluation(objective, golden, pre, case)), theta)
        np.testing.assert_allclose(
            finite_difference_eps("fd_eps_one", tools.flat(theta), np.zeros(1)), golden[f"{case}.hvp.eps"], 1e-5
        )
        for vector in ("v", "g"):
            prefix = f"{case}.hvp.{vector}."
            if f"{prefix}{name}" in golden:
                expected = golden[f"{prefix}{name}"]
                found = product(golden[f"{prefix}vec"])
                np.testing.assert_allclose(found, expected, 1e-3, 1e-3 * np.max(np.abs(expected)), err_msg=prefix)


def test_complete_step(golden, theta, objective, pre):
    settings = MetaTRPO(step_size=float(golden.get("cfg.delta", golden.get("cfg.step_size", 0.01))))
    for case in cases_of(golden):
        evaluate = evaluation(objective, golden, pre, case)
        found = evaluate("loss_gradient", theta)

        def loss_and_kl(point, evaluate=evaluate):
            terms = evaluate("scalars", point)
            return mean_term(terms, "loss"), mean_kl(terms)

        _, details = trust_region_step(
            theta,
            mean_gradient(found),
            mean_term(found, "loss"),
            mean_kl(found),
            settings.product(theta, evaluate),
            loss_and_kl,
            settings.settings,
        )
        direction = golden[f"{case}.cg_direction"]
        np.testing.assert_allclose(
            tools.flat(unflatten(details.direction, theta)), direction, 5e-3, 5e-3 * np.max(np.abs(direction))
        )
        after, _, info = settings.update(theta, {}, evaluate)
        assert bool(info["rejected"]) == bool(golden[f"{case}.rejected"])
        assert int(info["backtrack_index"]) == int(golden[f"{case}.backtrack_index"])
        tools.assert_weights(after, golden, f"{case}.theta_after.", 0.0, 1e-4)
        np.testing.assert_allclose(info["loss_after"], golden[f"{case}.loss_after"], 1e-3, 1e-5)
        np.testing.assert_allclose(info["kl_after"], golden[f"{case}.kl_after"], 5e-3, 1e-6)
        if info["rejected"]:
            for name, value in theta.items():
                np.testing.assert_array_equal(after[name], value)


@pytest.mark.no_naive_files
def test_the_objective_is_the_one_of_separate_tasks(golden, theta, objective, pre):
    """Working on the tasks one by one, as large batches do, gives the same sums."""
    case = cases_of(golden)[0]
    data = MetaData(pre, tools.phase_of(golden, f"{case}.post."))
    one_by_one = MetaObjective(objective.policy, objective.objective, objective.inner_lr, rows_at_once=1)
    for what in ("loss_gradient", "kl_gradient", "scalars"):
        a, b = (each.evaluate(what, theta, data) for each in (objective, one_by_one))
        for name, value in (a.gradient or {}).items():
            np.testing.assert_allclose(value, b.gradient[name], 1e-4, 1e-5)  # XLA rounds otherwise
        for name, value in a.terms.items():
            np.testing.assert_allclose(value, b.terms[name], 1e-5, 1e-6)
