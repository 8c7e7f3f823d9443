"""Random and zero policies against the measured anchors of TESP specification, section 5.9."""

import numpy as np
import pytest

from tesp import families


def episodes(family, goals, act):
    """Runs one episode of at most 200 steps per goal; returns (returns, lengths)."""
    simulation = family.make_simulation(len(goals))
    returns, lengths = np.zeros(len(goals)), np.zeros(len(goals), int)
    running = np.ones(len(goals), bool)
    for _ in range(200):
        outcome = simulation.step(act(), goals)
        returns[running] += outcome.reward[running]
        lengths[running] += 1
        running &= ~outcome.terminated
        simulation.select(np.flatnonzero(running))
    return returns, lengths


# Family, goals used, mean return on D, its tolerance, mean length, its tolerance. The tolerances are about three
# standard errors for so few episodes.
@pytest.mark.parametrize(
    ("make", "count", "mean_return", "return_tolerance", "mean_length", "length_tolerance"),
    [
        (families.Wheeled, 60, -227.0, 45.0, 198.6, 5.0),
        (families.Ant, 20, -159.0, 40.0, 199.7, 5.0),
        (families.Reacher2Link, 50, -244.0, 45.0, 183.9, 20.0),
        (families.Reacher4Link, 50, -201.0, 45.0, 160.7, 25.0),
    ],
)
def test_random_policy(make, count, mean_return, return_tolerance, mean_length, length_tolerance):
    family = make()
    goals = families.draw_goal_sets(family, seed=1).train[:count]
    rng = np.random.RandomState(0)
    returns, lengths = episodes(family, goals, lambda: rng.randn(count, family.action_dim))
    assert returns.mean() == pytest.approx(mean_return, abs=return_tolerance)
    assert lengths.mean() == pytest.approx(mean_length, abs=length_tolerance)


@pytest.mark.parametrize(
    ("make", "expected"), [(families.Wheeled, -155.7), (families.Reacher2Link, -350.0), (families.Reacher4Link, -395.0)]
)
def test_zero_policy(make, expected):
    family = make()
    goals = families.draw_goal_sets(family, seed=1).train[:20]
    returns, _ = episodes(family, goals, lambda: np.zeros((20, family.action_dim)))
    assert returns.mean() == pytest.approx(expected, rel=0.02)
