"""Conjugate gradient, Hessian-vector products and the line search, on problems whose solution is known."""

import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from metarl.optim.trust_region import (
    TrustRegion,
    conjugate_gradient,
    finite_difference_eps,
    flatten,
    hessian_product,
    trust_region_step,
    unflatten,
)


def spd(rng, n, condition=10.0):
    q, _ = np.linalg.qr(rng.normal(size=(n, n)))
    return (q * np.linspace(1.0, condition, n)) @ q.T


@settings(deadline=None, max_examples=50)
@given(n=st.integers(1, 12), seed=st.integers(0, 10_000), condition=st.floats(1.0, 100.0))
def test_conjugate_gradient_solves_positive_systems(n, seed, condition):
    rng = np.random.default_rng(seed)
    matrix, g = spd(rng, n, condition), rng.normal(size=n)
    x = conjugate_gradient(lambda v: matrix @ v, g, iterations=3 * n + 5, residual_tol=1e-22)
    np.testing.assert_allclose(matrix @ x, g, rtol=0, atol=1e-7 * np.linalg.norm(g))


def test_conjugate_gradient_counts_its_products():
    calls = []

    def product(v):
        calls.append(v)
        return np.diag(np.arange(1.0, 31.0)) @ v

    conjugate_gradient(product, np.ones(30), iterations=4, residual_tol=0.0)
    assert len(calls) == 4
    assert np.array_equal(conjugate_gradient(product, np.zeros(30)), np.zeros(30))
    assert len(calls) == 4


def test_flattening_is_undone():
    nest = {"b": tf.reshape(tf.range(6.0), (2, 3)), "a": tf.constant(7.0), "c": (tf.ones(2),)}
    again = unflatten(flatten(nest), nest)
    tf.nest.assert_same_structure(nest, again)
    for x, y in zip(tf.nest.flatten(nest), tf.nest.flatten(again), strict=True):
        np.testing.assert_array_equal(x, y)


def test_steps_of_the_finite_differences():
    theta, v = np.array([3.0, 4.0]), np.array([0.0, 2.0])
    assert finite_difference_eps("fd_eps_one", theta, v) == pytest.approx(0.2)
    assert finite_difference_eps("fd_eps_one", theta, 100 * v) == pytest.approx(0.2)
    assert np.linalg.norm(finite_difference_eps("fd", theta, v) * v) == pytest.approx(5e-3 * 5.0, rel=1e-6)


class Bowl:
    """KL = 1/2 d'Hd around the start, loss = g'd: everything about one step is known."""

    def __init__(self, seed=0, n=5):
        rng = np.random.default_rng(seed)
        self.hessian, self.g = spd(rng, n), rng.normal(size=n)
        self.start = {"x": tf.constant(rng.normal(size=n), tf.float32)}
        self.evaluations = 0

    def away(self, theta):
        return np.asarray(theta["x"], np.float64) - np.asarray(self.start["x"], np.float64)

    def kl_gradient(self, theta):
        return {"x": self.hessian @ self.away(theta)}

    def loss_and_kl(self, theta):
        self.evaluations += 1
        d = self.away(theta)
        return float(self.g @ d), 0.5 * float(d @ self.hessian @ d)

    def product(self, kind, damping=0.0):
        return hessian_product(
            kind, self.start, self.kl_gradient, lambda _, v: {"x": self.hessian @ np.asarray(v["x"])}, damping
        )

    def step(self, kind="exact", loss_and_kl=None, **kwargs):
        constants = TrustRegion(**kwargs)
        return trust_region_step(
            self.start, {"x": self.g}, 0.0, 0.0, self.product(kind), loss_and_kl or self.loss_and_kl, constants
        )


@pytest.mark.parametrize("kind", ["fd_eps_one", "fd", "exact"])
def test_all_products_agree_where_the_hessian_is_constant(kind):
    bowl, v = Bowl(), np.float32([1, -2, 3, 0.5, 0])
    np.testing.assert_allclose(bowl.product(kind, 0.1)(v), bowl.hessian @ v + 0.1 * v, rtol=2e-3, atol=2e-3)


def test_full_step_is_on_the_boundary():
    """sqrt(2 delta / x'Hx) x with Hx = g has exactly the allowed KL; rounding decides which side it is on."""
    bowl = Bowl()
    theta, info = bowl.step(step_size=0.01)
    natural = np.linalg.solve(bowl.hessian, bowl.g)
    expected = -np.sqrt(0.02 / (natural @ bowl.g)) * natural * 0.8**info.backtrack_index
    np.testing.assert_allclose(bowl.away(theta), expected, rtol=1e-3, atol=1e-5)
    assert info.backtrack_index <= 1
    assert info.limit_ratio == pytest.approx(0.64**info.backtrack_index, rel=1e-2)
    assert not info.rejected
    assert info.loss_after < info.loss_before


def test_line_search_backtracks_into_the_region():
    bowl = Bowl()

    def steeper(theta):
        loss, kl = bowl.loss_and_kl(theta)
        return loss, 2.0 * kl

    _, info = bowl.step(loss_and_kl=steeper)
    # 0.8^(2 j) <= 1/2 for the first time at j = 2.
    assert info.backtrack_index == 2
    assert info.kl_after <= 0.01


@pytest.mark.parametrize(
    "evaluation",
    [
        lambda loss, kl: (abs(loss), kl),
        lambda loss, kl: (0.0, kl),
        lambda loss, kl: (loss, 1.0),
        lambda loss, kl: (math.nan, kl),
        lambda loss, kl: (loss, math.nan),
        lambda loss, kl: (loss, 0.01),
    ],
    ids=["loss rises", "loss stays", "KL too large", "loss is no number", "KL is no number", "KL on the limit"],
)
def test_line_search_rejects(evaluation):
    bowl = Bowl()
    theta, info = bowl.step(loss_and_kl=lambda point: evaluation(*bowl.loss_and_kl(point)))
    assert info.rejected
    np.testing.assert_array_equal(theta["x"], bowl.start["x"])
    assert (info.loss_after, info.kl_after) == (info.loss_before, info.kl_before)
    # A candidate on the limit ends the search and is then rejected; all else is searched to the end.
    assert info.backtrack_index == (0 if evaluation(-1.0, 0.0) == (-1.0, 0.01) else 14)


def test_an_indefinite_hessian_gives_the_unscaled_direction():
    bowl = Bowl()
    bowl.hessian = -bowl.hessian
    _, info = bowl.step(max_backtracks=1)
    assert info.scale == 1.0


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), bend=st.floats(-3.0, 3.0), delta=st.floats(1e-4, 1.0))
def test_what_is_taken_is_better_and_inside(seed, bend, delta):
    bowl = Bowl(seed)

    def bent(theta):
        loss, kl = bowl.loss_and_kl(theta)
        return loss + bend * float(np.sum(bowl.away(theta) ** 2)), kl * (1.0 + abs(bend))

    theta, info = bowl.step(kind="fd_eps_one", loss_and_kl=bent, step_size=delta)
    loss, kl = bent(theta)
    if info.rejected:
        np.testing.assert_array_equal(theta["x"], bowl.start["x"])
    else:
        assert loss < 0.0
        assert kl <= delta
