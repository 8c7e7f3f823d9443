"""Goal sets and task batches (TESP specification, sections 3.1 and 5.7)."""

import json
import pathlib

import numpy as np
import pytest

from metarl.experiment.errors import UserError
from tesp import families
from tesp.families import goals

REFERENCE = json.loads((pathlib.Path(__file__).parents[1] / "data" / "tesp_env_trajectories.json").read_text())
OF_THRESHOLD = {threshold.split()[0]: numbers for threshold, numbers in REFERENCE["goals_seed1"].items()}
CASES = [
    (families.Wheeled, OF_THRESHOLD["sample_threshold_0.1"]),
    (families.Ant, OF_THRESHOLD["sample_threshold_0.1"]),
    (families.Reacher2Link, OF_THRESHOLD["sample_threshold_0.1"]),
    (families.Reacher4Link, OF_THRESHOLD["sample_threshold_0.11"]),
]


def six_digits(rows):
    return [[float(f"{value:.6g}") for value in row] for row in rows]


@pytest.mark.parametrize(("make", "reference"), CASES)
def test_goal_sets_are_the_references(make, reference):
    sets = families.draw_goal_sets(make(), seed=1)
    for name, drawn in sets._asdict().items():
        assert drawn.shape == (100, 2)
        assert drawn.dtype == np.float64
        assert six_digits(drawn[:3]) == reference[f"{name}_first3"]
        assert six_digits(drawn[-1:]) == [reference[f"{name}_last"]]


@pytest.mark.parametrize(("make", "reference"), CASES)
def test_first_meta_batch_is_the_references(make, reference):
    stream = families.task_batch_stream(make(), seed=1)
    batch = families.draw_task_batch(stream, 100, 20)
    assert sorted(batch.tolist()) == reference["first_meta_batch_task_indices_sorted"]


@pytest.mark.parametrize(("make", "reference"), CASES[2:])
def test_draw_counts_are_the_references(make, reference):
    proposals = np.random.RandomState(1).uniform(-1.5, 1.5, (10_000, 2))
    sets = families.draw_goal_sets(make(), seed=1)
    positions = [int(np.flatnonzero((proposals == drawn[-1]).all(axis=1))[0]) + 1 for drawn in sets]
    assert positions == reference["uniform_draws_consumed_after_train_test1_test2"]


def test_mean_radii():
    sets = families.draw_goal_sets(families.Wheeled(), seed=1)
    radii = [np.linalg.norm(drawn, axis=1).mean() for drawn in sets]
    assert radii == pytest.approx([0.778, 0.734, 1.318], abs=5e-4)


@pytest.mark.parametrize("make", [families.Wheeled, families.Reacher4Link, families.Point])
@pytest.mark.parametrize("seed", [0, 7])
def test_sets_obey_their_rules(make, seed):
    family = make()
    p = family.goal_parameters
    sets = families.draw_goal_sets(family, seed, num_goals=60)
    radius = [np.linalg.norm(drawn, axis=1) for drawn in sets]
    for near in radius[:2]:
        assert near.min() > p.inner_radius
        assert near.max() < p.near_radius
    assert radius[2].min() > p.near_radius
    assert radius[2].max() < p.far_radius
    for apart in (np.concatenate(sets[:2]), sets[2]):
        distance = np.linalg.norm(apart[:, None] - apart[None], axis=-1)
        assert distance[~np.eye(len(apart), dtype=bool)].min() >= p.min_distance
    assert np.abs(np.concatenate(sets)).max() <= p.proposal_half_width


def test_point_uses_its_own_distribution():
    p = families.Point().goal_parameters
    assert (p.inner_radius, p.near_radius, p.far_radius) == (0.2, 0.7, 1.0)
    assert (p.min_distance, p.proposal_half_width) == (0.01, 1.0)


def test_seeds_differ_and_repeat():
    family = families.Wheeled()
    first, again, other = (families.draw_goal_sets(family, seed, 10).train for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_task_batches_are_distinct_tasks():
    stream = np.random.RandomState(0)
    for _ in range(5):
        batch = families.draw_task_batch(stream, 20, 20)
        assert sorted(batch.tolist()) == list(range(20))
    assert families.draw_task_batch(stream, 20, 1).shape == (1,)


@pytest.mark.parametrize("rng", [np.random.default_rng(0), np.random.RandomState(0)])
@pytest.mark.parametrize("make", [families.Ant, families.Point])
def test_single_goals_follow_the_training_distribution(make, rng):
    family = make()
    drawn = np.array([family.draw_goal(rng) for _ in range(100)])
    radius = np.linalg.norm(drawn, axis=1)
    assert family.goal_parameters.inner_radius < radius.min()
    assert radius.max() < family.goal_parameters.near_radius
    assert (np.sign(drawn).sum(axis=0) != 100).all()


class TestMistakes:
    def test_meta_batch_larger_than_the_goal_set(self):
        with pytest.raises(UserError, match="meta_batch_size 21 is larger than the goal set of 20"):
            families.draw_task_batch(np.random.RandomState(0), 20, 21)

    @pytest.mark.parametrize("size", [0, -1, 2.5])
    def test_meta_batch_of_a_wrong_size(self, size):
        with pytest.raises(UserError, match="meta_batch_size"):
            families.draw_task_batch(np.random.RandomState(0), 20, size)

    @pytest.mark.parametrize("seed", [-1, 2**32, 1.5])
    def test_bad_seed(self, seed):
        with pytest.raises(UserError, match="goal seed"):
            families.draw_goal_sets(families.Wheeled(), seed)

    def test_goals_that_do_not_fit(self, monkeypatch):
        monkeypatch.setattr(goals, "_MAX_PROPOSALS", 2000)
        crowded = families.Wheeled(goal_parameters=families.GoalParameters(min_distance=0.5))
        with pytest.raises(UserError, match="no room for another train goal"):
            families.draw_goal_sets(crowded, seed=1)

    @pytest.mark.parametrize(
        "values",
        [
            {"inner_radius": 1.2},
            {"far_radius": 1.0},
            {"min_distance": -0.1},
            {"near_radius": "far"},
            {"proposal_half_width": 0.5},
        ],
    )
    def test_goal_parameters(self, values):
        with pytest.raises(UserError, match="GoalParameters"):
            families.GoalParameters(**values)
