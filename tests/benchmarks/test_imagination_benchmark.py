"""The floating-point work that imagination is measured by."""

import pytest

from benchmarks.imagination import ImaginationSizes, imagination_gflop, imagination_rate


def test_counts_the_products_of_model_and_policy():
    per_step = 2 * (23 * 512 + 512 * 512 + 512 * 17) + 2 * (17 * 32 + 32 * 32 + 32 * 6)
    assert imagination_gflop(ImaginationSizes(), 17, 6) == pytest.approx(per_step * 200_000 / 1e9)


def test_runs_at_any_size():
    sizes = ImaginationSizes(tasks=2, rollouts=2, horizon=3, models=2, model_hidden=(8,), policy_hidden=(4,))
    report = imagination_rate(sizes, repetitions=1)
    assert report.seconds > 0
    assert report.ratio > 0
