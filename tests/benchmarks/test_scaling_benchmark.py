"""The benchmark of worker processes: its model by hand, and its command line."""

import pytest
from experiment_tools import assert_help_is_quick, launch

from benchmarks import scaling, scaling_parts
from benchmarks.scaling_model import Costs, Iteration, from_one_worker, seconds


def test_the_model_by_hand():
    """S + W / N + C (a + b N) + N B / r, with numbers small enough for a head."""
    found = seconds(Iteration(learner=1.0, shards=8.0, calls=10, traffic=100.0), Costs(0.1, 0.01, 1000.0), 4)
    assert found == pytest.approx({"learner": 1.0, "shards": 2.0, "calls": 1.4, "bytes": 0.4})


def test_one_worker_gives_back_what_was_measured():
    costs = Costs(0.01, 0.001, 1e6)
    found = from_one_worker(total=5.0, waiting=4.0, calls=20, traffic=2e5, costs=costs)
    assert sum(seconds(found, costs, 1).values()) == pytest.approx(5.0)
    assert found.shards == pytest.approx(4.0 - 20 * 0.01)


def test_command_knows_all_parts():
    assert list(scaling_parts.PARTS) == list(scaling.PARTS)


def test_help_is_quick():
    assert_help_is_quick("benchmarks.scaling", "--only", "--quick")


@pytest.mark.slow
def test_everything_runs_at_the_smallest_size(tmp_path):
    done = launch("benchmarks.scaling", "--quick", f"--output={tmp_path / 'scaling.csv'}", timeout=500)
    assert done.returncode == 0, done.stderr
    table = (tmp_path / "scaling.csv").read_text()
    for row in ("one process", "two workers", "moved", "learner waits", "model of two workers", "model of 64 workers"):
        assert f"TESP, {row}" in table
        assert f"MB-MPO, {row}" in table
