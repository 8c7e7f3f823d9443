"""Planning: values by hand, the choice of the best, independence of chunks, and that good actions are found."""

import numpy as np
import pytest
import tensorflow as tf

from mbmpo.planning import (
    CrossEntropyMethod,
    ModelPredictiveController,
    RandomShooting,
    best_candidate,
    candidate_values,
)
from metarl.experiment.errors import UserError
from metarl.simulation.imaginable import ImaginableFamily

KEY = {"seed": 1, "iteration": 2, "phase": "real", "step": 3}


class Sliding(ImaginableFamily):
    """A point on a line that should come to the origin."""

    name = "sliding"
    observation_dim = action_dim = 1
    task_dim = state_dim = 0
    ends_early = False
    info_keys = ()

    def make_simulation(self, num_copies):
        raise AssertionError("planning must not simulate")

    def reward(self, observation, action, next_observation):
        return -tf.square(next_observation[..., 0])


class Drift:
    """Member e moves the point by gain e times the action."""

    num_models = 2

    def predict_random(self, effective, observation, action, member):
        return observation + tf.gather(effective, member)[:, tf.newaxis] * action

    def predict_blocks(self, effective, observation, action):
        raise AssertionError("planning draws a member for every row")


GAINS = np.array([0.9, 1.1], np.float32)


def controller(planner, states, **options):
    return ModelPredictiveController(planner, Sliding(), Drift(), states, **{"jit_compile": False, **options})


def test_values_are_discounted_sums_with_the_drawn_member_of_every_row_and_step():
    rng = np.random.default_rng(0)
    states, C, H, discount = 3, 4, 5, 0.9
    observation = rng.standard_normal((states, 1))
    candidates = rng.uniform(-1, 1, (H, states * C, 1))
    members = rng.integers(2, size=(H, states * C))
    gains = np.array([0.5, 2.0])
    predict = lambda o, a, member: Drift().predict_random(tf.constant(gains), o, a, member)  # noqa: E731
    got = candidate_values(
        predict, Sliding().reward, tf.constant(observation), tf.constant(candidates),
        tf.constant(members, tf.int32), discount,
    )  # fmt: skip
    for row in range(states * C):
        o, value = observation[row // C, 0], 0.0
        for t in range(H):
            o += gains[members[t, row]] * candidates[t, row, 0]
            value -= discount**t * o**2
        assert float(got[row // C, row % C]) == pytest.approx(value, rel=1e-12)


def test_the_first_of_equals_wins_and_nan_never():
    values = tf.constant([[1.0, 3.0, 3.0], [np.nan, -5.0, -5.0], [-np.inf, np.nan, -np.inf]])
    np.testing.assert_array_equal(best_candidate(values), [1, 1, 0])


def test_random_shooting_comes_close_and_keeps_to_the_box():
    observation = np.array([[0.6], [-0.4], [5.0]])
    plan = controller(RandomShooting(horizon=2, num_candidates=500), 3).plan(GAINS, observation, **KEY)
    np.testing.assert_allclose(plan.action[:2, 0], [-0.6, 0.4], atol=0.15)
    assert -1 <= plan.action[2, 0] < -0.8
    assert plan.value[2] < plan.value[0] <= 0


@pytest.mark.parametrize(
    "planner", [RandomShooting, CrossEntropyMethod], ids=["random_shooting", "cross_entropy_method"]
)
def test_the_plan_of_a_state_depends_neither_on_chunks_nor_on_other_states(planner):
    observation = np.linspace(-1, 1, 5)[:, None]
    settings = {"horizon": 3, "num_candidates": 20}
    whole = controller(planner(**settings), 5).plan(GAINS, observation, **KEY)
    for max_rows in (1, 40):
        chunked = controller(planner(**settings, max_rows=max_rows), 5)
        parts = chunked.plan(GAINS, observation, **KEY)
        np.testing.assert_allclose(parts.action, whole.action, rtol=1e-6)
        assert chunked.plan(GAINS, observation, **{**KEY, "step": 4}).action[0] != whole.action[0]
        assert chunked.tracing_count == 1
    alone = controller(planner(**settings), 2).plan(GAINS, observation[[3, 1]], state_indices=[3, 1], **KEY)
    np.testing.assert_allclose(alone.action, whole.action[[3, 1]], rtol=1e-6)


def test_the_cross_entropy_method_beats_random_shooting_with_as_many_model_steps():
    observation = np.linspace(-0.9, 0.9, 8)[:, None]
    shooting = controller(RandomShooting(horizon=4, num_candidates=300), 8, jit_compile=True).plan(
        GAINS, observation, **KEY
    )
    refined = controller(CrossEntropyMethod(horizon=4, num_candidates=60), 8, jit_compile=True).plan(
        GAINS, observation, **KEY
    )
    assert refined.value.mean() > shooting.value.mean()
    np.testing.assert_allclose(refined.action, -observation, atol=0.35)
    np.testing.assert_array_less(np.abs(refined.action), 1.0 + 1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomShooting(horizon=0), "RandomShooting.horizon"),
        (lambda: RandomShooting(discount=1.5), "RandomShooting.discount"),
        (lambda: CrossEntropyMethod(elite_fraction=0.0), "elite_fraction must be above 0"),
    ],
)
def test_refuses_bad_settings(make, message):
    with pytest.raises(UserError, match=message):
        make()
