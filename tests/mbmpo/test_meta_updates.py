"""Whole meta-updates: what they change, what they refuse, what they keep as state."""

import functools
import re

import numpy as np
import pytest
import tensorflow as tf
from learner_tools import HORIZON, maml, mbmpo
from toy_phases import combined, toy_phase, toy_policy, toy_weights

from mbmpo.families import HalfCheetah, InvertedPendulum
from mbmpo.meta_objective import Argument, Evaluation, MetaObjective, RandomKey
from mbmpo.meta_ppo import MetaPPO, adapted_coefficients
from mbmpo.meta_updates import TRPO, MetaTRPO, MetaVPG, mean_gradient
from mbmpo.objectives import MetaData
from metarl.experiment import state_arrays
from metarl.experiment.errors import UserError
from metarl.optim.adam import adam_init, adam_step
from metarl.optim.trust_region import conjugate_gradient, flatten

LR = 0.1
POLICY = toy_policy()


@functools.cache
def smooth_problem(inner_steps=1):
    """Theta and data sampled by the adapted policies themselves: ratio 1, KL 0."""
    theta = toy_weights(POLICY)
    objective = objective_of(MetaTRPO().losses())
    counts, weights, pre = (60, 60, 60), None, []
    for j in range(inner_steps):
        current = theta if weights is None else weights
        pre.append(toy_phase(POLICY, current, counts, seed=j, shift=0.0))
        weights = objective.adapt(theta, weights, pre[-1])
    post = toy_phase(POLICY, theta if weights is None else weights, counts, seed=77, shift=0.0)
    return theta, MetaData(tuple(pre), post)


@functools.cache
def objective_of(losses):
    return MetaObjective(POLICY, losses, LR)


def evaluator(update, data):
    objective = objective_of(update.losses())
    return lambda what, theta, argument=None: objective.evaluate(what, theta, data, argument)


def cosine(a, b):
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def test_all_products_give_nearly_parallel_directions():
    """O-3: the accidental step of the finite difference changes the descent direction little."""
    theta, data = smooth_problem()
    directions = {}
    evaluate = evaluator(MetaTRPO(), data)
    g = flatten(mean_gradient(evaluate("loss_gradient", theta)))
    for kind in ("fd_eps_one", "fd", "exact"):
        # Four iterations: later ones resolve directions of almost no curvature, where float32 has nothing to say.
        product = MetaTRPO(hvp=kind, damping=1e-2).product(theta, evaluate)
        directions[kind] = conjugate_gradient(product, g, iterations=4)
    assert cosine(directions["fd"], directions["exact"]) > 0.999
    assert cosine(directions["fd_eps_one"], directions["exact"]) > 0.95


@pytest.mark.parametrize("update", [MetaTRPO(), MetaTRPO(hvp="exact"), MetaTRPO(constraint="pre_update")])
def test_trpo_improves_within_the_region(update):
    theta, data = smooth_problem()
    evaluate = evaluator(update, data)
    after, state, info = update.update(theta, update.initial_state(theta, 3, 1), evaluate)
    assert state == {}
    assert tuple(info) == update.info_names
    assert not info["rejected"]
    assert info["loss_after"] < info["loss_before"]
    assert 0.1 * 0.01 < info["kl_after"] < 0.01
    assert info["kl_before"] == pytest.approx(0.0, abs=1e-6)
    assert evaluate("scalars", after).terms["loss"].mean() == pytest.approx(info["loss_after"], rel=1e-5)


def test_trpo_rejects_what_does_not_improve():
    theta, data = smooth_problem()
    evaluate = evaluator(MetaTRPO(), data)

    def uphill(what, point, argument=None):
        found = evaluate(what, point, argument)
        if what != "loss_gradient":
            return found
        return found._replace(gradient={name: -value for name, value in found.gradient.items()})

    after, _, info = MetaTRPO(max_backtracks=3).update(theta, {}, uphill)
    assert info["rejected"] == 1.0
    assert info["backtrack_index"] == 2
    assert after is theta


def test_trpo_without_inner_steps_is_plain():
    theta, data = smooth_problem(0)
    update = TRPO()
    _, _, info = update.update(theta, {}, evaluator(update, data))
    assert info["loss_after"] < info["loss_before"]
    assert update.hvp == "exact"


def test_trained_step_sizes_move():
    theta, data = smooth_problem()
    update = MetaTRPO()
    objective = update.make_objective(POLICY, inner_lr=LR, trainable_inner_lr=True)
    theta = objective.initial_parameters(theta)
    after, _, info = update.update(
        theta, {}, lambda what, p, argument=None: objective.evaluate(what, p, data, argument)
    )
    assert not info["rejected"]
    assert np.max(np.abs(after["step_size/mlp0.kernel"] - LR)) > 0.0
    assert objective.policy_weights(after).keys() == POLICY.initial_weights(0, 3, 2).keys()


def test_vpg_is_one_adam_step_on_the_meta_gradient():
    theta, data = smooth_problem()
    update = MetaVPG(learning_rate=0.01)
    evaluate = evaluator(update, data)
    state = update.initial_state(theta, 3, 1)
    expected, adam = theta, adam_init(theta)
    found = theta
    for _ in range(2):
        gradient = mean_gradient(evaluate("loss_gradient", expected))
        expected, adam = adam_step(expected, gradient, adam, 0.01)
        found, state, info = update.update(found, state, evaluate)
        assert tuple(info) == update.info_names
        assert info["gradient_norm"] == pytest.approx(np.linalg.norm(flatten(gradient)), rel=1e-5)
    for name in theta:
        np.testing.assert_array_equal(found[name], expected[name])
    assert state["adam"].step == 2


@pytest.mark.parametrize("update", [MetaTRPO(use_maml=False), MetaVPG(use_maml=False), MetaPPO(use_maml=False)])
def test_without_maml_the_inner_loss_is_stepped_on(update):
    theta, data = smooth_problem()
    evaluate = evaluator(update, data)
    gradient = mean_gradient(evaluate("inner_gradient", theta))
    expected, _ = adam_step(theta, gradient, adam_init(theta), 1e-3)
    found, state, info = update.update(theta, update.initial_state(theta, 3, 1), evaluate)
    assert set(info) == {"loss_before", "gradient_norm"} & set(update.info_names)
    if "gradient_norm" in info:
        assert info["gradient_norm"] == pytest.approx(np.linalg.norm(flatten(gradient)), rel=1e-5)
    assert state["adam"].step == 1
    for name in theta:
        np.testing.assert_array_equal(found[name], expected[name])


def test_adaptive_coefficients():
    kl = np.array([0.0066, 0.0067, 0.0149, 0.0151])
    np.testing.assert_array_equal(adapted_coefficients(np.ones(4), kl, 0.01), [0.5, 1.0, 1.0, 2.0])


class Scripted:
    """Counts what PPO asks for; losses as told, gradients zero."""

    def __init__(self, losses, rows=12):
        self.losses, self.rows, self.asked = iter(losses), rows, []

    def __call__(self, what, theta, argument=None):
        self.asked.append((what, argument.minibatch))
        loss = next(self.losses) if what == "scalars" else 0.0
        shape = {"inner_kl": (2, 1), "rows": (2, 2)}
        names = ("loss", "kl", "count", "outer_kl", "inner_kl", "rows")
        terms = {name: np.zeros(shape.get(name, 2)) for name in names}
        terms |= {"loss": np.full(2, loss), "rows": np.full((2, 2), self.rows), "count": np.ones(2)}
        return Evaluation({name: tf.zeros_like(value) for name, value in theta.items()}, terms)


def test_ppo_stops_when_an_epoch_changes_little():
    theta, update = toy_weights(POLICY), MetaPPO(max_epochs=8)
    scripted = Scripted([0.0, 1.0, 2.0, 2.0 + 5e-7, 3.0])
    _, state, info = update.update(theta, update.initial_state(theta, 2, 1), scripted)
    assert info["epochs"] == 3
    assert [what for what, _ in scripted.asked] == ["scalars", *["loss_gradient", "scalars"] * 3]
    np.testing.assert_array_equal(state["inner_coefficients"], 0.5)
    np.testing.assert_array_equal(state["outer_coefficients"], 1e-11)


def test_ppo_minibatches():
    theta, update = toy_weights(POLICY), MetaPPO(max_epochs=2, num_batches=3, multi_adam=True)
    scripted = Scripted(range(9), rows=11)
    key = RandomKey(1, 5, "step_2")
    state = update.initial_state(theta, 2, 1)
    _, state, _ = update.update(theta, state, scripted, key=key)
    batches = [batch for what, batch in scripted.asked if what == "loss_gradient"]
    assert [(b.epoch, b.position, b.size, b.num_batches) for b in batches] == [
        (epoch, position, 3, 3) for epoch in range(2) for position in range(3)
    ]
    assert all(batch.key == key for batch in batches)
    assert [state["adam"][str(i)].step for i in range(6)] == [1] * 6


def test_ppo_drops_rows_only_where_tasks_are_unequal():
    assert MetaPPO(num_batches=1)._batch_size(np.array([[5, 5], [5, 5]])) == (5, True)
    assert MetaPPO(num_batches=1)._batch_size(np.array([[5, 4], [5, 5]])) == (4, False)
    assert MetaPPO(num_batches=None)._batch_size(np.array([[5, 4], [5, 5]]))[1]


def test_ppo_makes_no_more_minibatches_than_a_task_has_rows():
    theta = toy_weights(POLICY)
    update = MetaPPO(max_epochs=1, num_batches=12)
    update.update(theta, update.initial_state(theta, 2, 1), Scripted(range(9), rows=12))
    update.require_rows(12)
    with pytest.raises(UserError, match=r"^MetaPPO\.num_batches = 12: some task has only 11 rows in a phase$"):
        update.update(theta, update.initial_state(theta, 2, 1), Scripted(range(9), rows=11))
    MetaPPO(num_batches=12, use_maml=False).require_rows(11)  # goes through all rows at once


@pytest.mark.parametrize("make", [mbmpo, maml])
@pytest.mark.parametrize("family", [HalfCheetah, InvertedPendulum])
def test_minibatches_that_can_never_be_filled_are_refused_when_configured(make, family):
    family = family()
    most = int(re.search(r"only (\d+) rows", refused(make, family, 10_000))[1])
    shortest = {mbmpo: 3, maml: 2}[make] * HORIZON
    assert most >= shortest if family.ends_early else most == shortest
    assert f"num_batches = {most + 1}:" in refused(make, family, most + 1)
    make(MetaPPO(num_batches=most), family=family)


def refused(make, family, num_batches):
    with pytest.raises(UserError) as error:
        make(MetaPPO(num_batches=num_batches), family=family)
    return str(error.value)


@pytest.mark.parametrize(
    "settings", [{}, {"clip_outer": False}, {"num_batches": 2}], ids=["clip", "penalty", "batches"]
)
def test_ppo_improves(settings):
    theta, data = smooth_problem()
    update = MetaPPO(learning_rate=3e-3, max_epochs=3, init_outer_kl_penalty=1e-3, **settings)
    after, state, info = update.update(theta, update.initial_state(theta, 3, 1), evaluator(update, data))
    assert tuple(info) == update.info_names
    assert info["loss_after"] < info["loss_before"] - 1e-3
    assert np.max(np.abs(after["mlp0.kernel"] - theta["mlp0.kernel"])) > 0.0
    if "clip_outer" in settings:
        assert np.all(state["outer_coefficients"] != 1e-3)


@pytest.mark.parametrize("update", [MetaVPG(), MetaPPO(max_epochs=2, multi_adam=True)])
def test_state_survives_a_checkpoint(update):
    theta, data = smooth_problem()
    evaluate = evaluator(update, data)
    first, state, _ = update.update(theta, update.initial_state(theta, 3, 1), evaluate)
    arrays = state_arrays.flatten("s", state)
    again = state_arrays.unflatten("s", arrays, update.initial_state(theta, 3, 1))
    one, two = (update.update(first, s, evaluate)[0] for s in (state, again))
    for name in theta:
        np.testing.assert_array_equal(one[name], two[name])


def test_two_shards_step_like_one():
    theta, data = smooth_problem()
    update = MetaTRPO(cg_iterations=3)
    objective = objective_of(update.losses())

    def evaluate(what, point, argument=None):
        argument = argument or Argument()
        parts = []
        for start, stop in ((0, 1), (1, 3)):
            mine = tf.nest.map_structure(lambda x, a=start, b=stop: x[a:b], data)
            parts.append(objective.evaluate(what, point, mine, argument.part(start, stop), range(start, stop)))
        return combined(parts)

    split, _, _ = update.update(theta, {}, evaluate)
    whole, _, _ = update.update(theta, {}, evaluator(update, data))
    for name in theta:
        np.testing.assert_allclose(split[name], whole[name], 1e-2, 1e-4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MetaTRPO(hvp="fd_eps_on"), "did you mean 'fd_eps_one'"),
        (lambda: MetaTRPO(constraint="post"), "MetaTRPO.constraint"),
        (lambda: MetaTRPO(cg_iterations=0), "MetaTRPO.cg_iterations"),
        (lambda: TRPO(step_size="a"), "TRPO.step_size"),
        (lambda: TRPO(step_size=0), "^TRPO.step_size must be positive"),
        (lambda: MetaTRPO(step_size=0.0), "MetaTRPO.step_size must be positive"),
        (lambda: MetaVPG(learning_rate=-1.0), "MetaVPG.learning_rate"),
        (lambda: MetaPPO(num_batches=0), "MetaPPO.num_batches"),
        (lambda: MetaPPO(clip_outer=1), "MetaPPO.clip_outer"),
    ],
)
def test_bad_settings(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_no_sum_depends_on_timing():
    """AddN of three or more tensors adds in whatever order threads finish; see tests/tesp/test_determinism.py."""
    theta, data = smooth_problem(2)
    objective = MetaPPO(entropy_bonus=0.1).make_objective(POLICY, inner_lr=LR, trainable_inner_lr=True)
    theta = objective.initial_parameters(theta)

    @tf.function(autograph=False)
    def gradient(theta, data):
        return objective._function("loss_gradient")(theta, data, None, None, None)

    graph = gradient.get_concrete_function(theta, data).graph
    assert not [op.name for op in graph.get_operations() if op.type == "AddN" and len(op.inputs) > 2]
