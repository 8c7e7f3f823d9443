"""Student's quantiles against tables, the interval by hand and by its coverage."""

import numpy as np
import pytest

from metarl.experiment.statistics import mean_interval, student_t_quantile


@pytest.mark.parametrize(
    ("probability", "degrees", "expected"),
    [
        (0.975, 1, 12.7062), (0.975, 2, 4.30265), (0.975, 3, 3.18245), (0.975, 4, 2.77645), (0.975, 5, 2.57058),
        (0.975, 30, 2.04227), (0.975, 99, 1.98422), (0.95, 10, 1.81246), (0.995, 7, 3.49948), (0.5, 3, 0.0),
        (0.025, 9, -2.26216),
    ],
)  # fmt: skip
def test_quantiles_are_those_of_the_tables(probability, degrees, expected):
    assert student_t_quantile(probability, degrees) == pytest.approx(expected, rel=1e-5, abs=1e-12)


def test_many_degrees_of_freedom_are_the_normal_distribution():
    assert student_t_quantile(0.975, 100_000) == pytest.approx(1.95996, rel=1e-4)


def test_interval_of_three_numbers():
    interval = mean_interval(np.array([1.0, 2.0, 6.0]))
    half_width = 4.30265 * np.sqrt(7.0) / np.sqrt(3.0)
    assert interval.mean == 3.0
    assert interval.low == pytest.approx(3.0 - half_width, rel=1e-5)
    assert interval.high == pytest.approx(3.0 + half_width, rel=1e-5)


def test_one_unit_has_no_interval_and_none_is_an_error():
    assert mean_interval(np.array([2.5])) == (2.5, None, None)
    with pytest.raises(ValueError, match="at least one unit"):
        mean_interval(np.array([]))
    with pytest.raises(ValueError, match="no quantile"):
        student_t_quantile(1.0, 3)


@pytest.mark.parametrize("units", [3, 20])
def test_the_interval_covers_the_mean_as_often_as_it_says(units):
    rng = np.random.default_rng(0)
    samples = rng.normal(5.0, 2.0, size=(2000, units))
    intervals = [mean_interval(sample) for sample in samples]
    covered = np.mean([low <= 5.0 <= high for _, low, high in intervals])
    assert covered == pytest.approx(0.95, abs=0.015)
