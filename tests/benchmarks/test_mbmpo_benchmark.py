"""Every part of `python -m benchmarks.mbmpo` measures something at a tiny size; its requirements are the issue's."""

import math

import pytest

from benchmarks import mbmpo, mbmpo_parts, report


def test_command_knows_all_parts():
    assert list(mbmpo_parts.PARTS) == list(mbmpo.PARTS)


@pytest.mark.parametrize("part", mbmpo_parts.PARTS)
def test_every_part_measures_something(part):
    rows = mbmpo_parts.PARTS[part](mbmpo_parts.QUICK)
    assert rows
    for row in rows:
        assert math.isfinite(row.measured)
        assert row.measured > 0
        assert row.ratio is None or row.ratio > 0
    assert all(not row.required for row in report.judge(rows, mbmpo_parts.QUICK.judged))
    required = {row.required for row in rows if row.required}
    wanted = {
        "iteration": {"<= 4", "<= 6"},
        "imagination": {">= 0.55"},
        "fit": {">= 0.4"},
        "original": {">= 1.3", ">= 7"},
        "maml": {">= 5.18182"},
    }
    assert required == wanted.get(part, set())
