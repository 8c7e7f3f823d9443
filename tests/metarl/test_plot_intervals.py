"""Interquartile means, stratified bootstrap intervals, and runs with different x on common points."""

import numpy as np
import pytest

from metarl.reporting import intervals


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([3.0], 3.0),
        ([1.0, 3.0], 2.0),
        ([0.0, 10.0, 100.0], (0.25 * 0 + 10 + 0.25 * 100) / 1.5),
        ([4.0, 1.0, 1000.0, 2.0], 3.0),
        ([8.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 1000.0], (3 + 4 + 5 + 6) / 4),
    ],
)
def test_interquartile_mean_by_hand(values, expected):
    found = intervals.interquartile_mean(np.array(values)[:, None])
    np.testing.assert_allclose(found, [expected], rtol=1e-14)


def test_bootstrap_against_a_naive_loop_over_resampled_runs():
    rng = np.random.default_rng(3)
    values, strata = rng.normal(size=(7, 5)) ** 3, np.array([0, 1, 0, 1, 1, 1, 1])
    means, iqms = intervals.bootstrap(values, strata, resamples=40, seed=11)
    draws = np.random.default_rng(11)
    first = draws.multinomial(2, [1 / 2] * 2, 40)
    second = draws.multinomial(5, [1 / 5] * 5, 40)
    for b in range(40):
        resampled = []
        for members, times in (((0, 2), first[b]), ((1, 3, 4, 5, 6), second[b])):
            for member, repeats in zip(members, times, strict=True):
                resampled += [values[member]] * repeats
        assert len(resampled) == 7
        np.testing.assert_allclose(means[b], np.mean(resampled, axis=0), rtol=1e-12)
        np.testing.assert_allclose(iqms[b], intervals.interquartile_mean(np.array(resampled)), rtol=1e-12)


def test_the_interval_of_the_mean_is_as_wide_as_theory_says():
    values = np.random.default_rng(0).normal(2.0, 3.0, size=(400, 6))
    summary = intervals.summarise(values, np.zeros(400))
    expected = 2 * 1.96 * values.std(axis=0) / 20
    np.testing.assert_allclose(summary.mean_high - summary.mean_low, expected, rtol=0.12)
    assert (summary.mean_low < summary.mean).all()
    assert (summary.mean < summary.mean_high).all()


def test_strata_keep_the_difference_of_configurations_out_of_the_interval():
    values = np.array([[0.0], [0.1], [100.0], [100.1]])
    apart = intervals.summarise(values, np.array([0, 0, 1, 1]))
    mixed = intervals.summarise(values, np.zeros(4))
    assert apart.mean_high - apart.mean_low < 0.11
    assert mixed.mean_high - mixed.mean_low > 50


def test_points_where_runs_are_missing_are_summarised_over_the_others():
    values = np.array([[1.0, 2.0, np.nan], [3.0, np.nan, np.nan], [8.0, 4.0, np.nan]])
    summary = intervals.summarise(values, np.zeros(3))
    np.testing.assert_array_equal(summary.runs, [3, 2, 0])
    np.testing.assert_allclose(summary.mean, [4.0, 3.0, np.nan])
    np.testing.assert_allclose(summary.std[:2], [np.sqrt((9 + 1 + 16) / 3), 1.0])
    assert np.isnan(intervals.summarise(values[:1], np.zeros(1)).mean_low).all()


def test_align_by_lines_between_a_runs_own_points_and_no_further():
    nan = np.nan
    long = np.array([0.0, 10.0, 20.0, 30.0]), np.array([0.0, 1.0, nan, 3.0])
    short = np.array([5.0, 10.0, 10.0]), np.array([7.0, 0.0, 9.0])
    grid, values = intervals.align([long, short], 100)
    np.testing.assert_array_equal(grid, [0, 5, 10, 30])
    np.testing.assert_allclose(values, [[0, 0.5, 1, 3], [nan, 7, 9, nan]])
    grid, _ = intervals.align([(np.arange(1000.0), np.arange(1000.0))], 5)
    np.testing.assert_array_equal(grid, [0, 250, 500, 749, 999])


def test_configurations_of_one_run_are_one_stratum_together():
    """Such a run would be in every resample exactly once, and the interval as narrow as the runs are few."""
    apart = intervals.summarise(np.array([[0.0], [100.0]]), np.array([0, 1]))
    assert (apart.mean_low, apart.mean, apart.mean_high) == (0, 50, 100)
    assert (apart.iqm_low, apart.iqm_high) == (0, 100)
    values = np.array([[0.0], [0.1], [50.0], [100.0]])
    some = intervals.summarise(values, np.array([5, 5, 3, 9]))
    # per resample 0 to 0.1 of the first two, and 50 + 50, 50 + 100 or 100 + 100 of the others
    np.testing.assert_allclose([some.mean_low, some.mean_high], [[(0 + 0 + 100) / 4], [(0.1 + 0.1 + 200) / 4]])


@pytest.mark.parametrize("lone", [0, 1, 7])
def test_a_configuration_of_one_run_beside_others_joins_the_smallest(lone):
    """A seed that was resumed with another setting is not held fixed while the others vary."""
    values = np.array([[1000.0], [1000.1], [1000.2], [0.0], [30.0], [10.0]])
    strata = np.array([4, 4, 4, 2, 2, lone])
    joined = intervals.summarise(values, strata)
    expected = intervals.summarise(values, np.array([4, 4, 4, 2, 2, 2]))
    np.testing.assert_array_equal(joined, expected)
    only = intervals.summarise(values[3:], strata[3:])
    np.testing.assert_array_equal(only, intervals.summarise(values[3:], np.zeros(3)))


def test_strata_are_those_of_the_runs_that_have_a_value():
    """Where one of two runs ends, the other is a configuration of one run from there on."""
    values = np.array([[0.0, np.nan], [0.1, 3.0], [9.0, 9.0]])
    summary = intervals.summarise(values, np.array([0, 0, 1]))
    np.testing.assert_array_equal([summary.mean_low[1], summary.mean_high[1]], [3, 9])
