"""The benchmark command runs, says what is wrong with its flags, and judges what it measured."""

import csv
import json
import math
import subprocess
import sys
import time

import pytest
from absl.testing import flagsaver

from benchmarks import command as benchmark_command
from benchmarks import parts, report, tesp
from benchmarks.meta_update import Sizes, make_method, meta_update_gflop
from benchmarks.report import Row

TINY = parts.QUICK._replace(
    sizes=Sizes(tasks=1, copies=2, horizon=5, hidden=4, gru_units=4, episodes=2, evaluations=2),
    small_horizon=5,
    physics_seconds=0.01,
)


def command(*flags):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.tesp", *flags], capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize("part", parts.PARTS)
def test_every_part_measures_something(part, monkeypatch):
    monkeypatch.setattr(parts, "ORIGINALS", (parts.Original("MAESN", 2, 2, 2.0, 5.0),))
    rows = parts.PARTS[part](TINY)
    assert rows
    for row in rows:
        assert math.isfinite(row.measured)
        assert row.measured > 0
        assert row.ratio is None or row.ratio > 0
    assert all(not row.required for row in report.judge(rows, TINY.judged))
    assert report.judge(rows, True) == rows


def test_command_knows_all_parts():
    assert list(parts.PARTS) == list(tesp.PARTS)


def test_command_prints_and_writes(tmp_path):
    found = command("--only=encoder", "--quick", f"--output={tmp_path / 'speed.json'}")
    assert found.returncode == 0, found.stderr
    header, line = found.stdout.splitlines()
    assert header.split()[:4] == ["what", "measured", "unit", "yardstick"]
    assert line.startswith("encoder gradient")
    (record,) = json.loads((tmp_path / "speed.json").read_text())
    assert record["unit"] == "GFLOP/s"
    assert 0 < record["ratio"] < 1


def test_an_interrupted_benchmark_keeps_what_it_has_measured(tmp_path, monkeypatch, capsys):
    def interrupted(scale):
        raise KeyboardInterrupt

    found = {"first": lambda scale: [Row("physics", 3.0, "steps/s")], "second": interrupted}
    monkeypatch.setattr(parts, "PARTS", found)
    path = tmp_path / "speed.json"
    with flagsaver.as_parsed(quick="false", only="", output=str(path)):
        assert benchmark_command.run(["tesp"], list(found), "benchmarks.parts") == 130
    assert "physics" in capsys.readouterr().out
    assert [row["measured"] for row in json.loads(path.read_text())] == [3.0]


def test_help_comes_before_tensorflow():
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import absl.flags"], check=True)
    python = time.perf_counter() - started
    started = time.perf_counter()
    found = command("--help")
    assert found.returncode == 0
    assert "--only" in found.stdout
    assert time.perf_counter() - started < 1.0 + 5 * python


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--only=samplin", "did you mean 'sampling'"),
        ("--output=speed.txt", "must end in .csv or .json"),
        ("--output=nowhere/speed.csv", "there is no folder 'nowhere'"),
        ("--onyl=paper", "onyl"),
        ("paper", "unexpected argument 'paper'"),
    ],
)
def test_mistakes_are_one_line(flag, words):
    found = command(flag)
    assert found.returncode == 2
    assert words in found.stderr
    assert len(found.stderr.splitlines()) == 1


def test_rows_are_judged():
    fast = Row("a", 2.0, "s", 10.0, 5.0, at_least=5.0)
    assert (fast.required, fast.ok) == (">= 5", "yes")
    assert fast._replace(ratio=4.9).ok == "NO"
    within = Row("b", 2.0, "s", 1.0, 2.0, at_most=2.5)
    assert (within.required, within.ok) == ("<= 2.5", "yes")
    assert within._replace(ratio=2.6).ok == "NO"
    assert Row("c", 1.0, "s").ok == ""
    lines = report.table([fast, within]).splitlines()
    assert [line.index(word) for line, word in zip(lines, ("required", ">= 5", "<= 2.5"), strict=True)] == [
        lines[0].index("required")
    ] * 3


def test_csv_keeps_the_digits(tmp_path):
    path = tmp_path / "speed.csv"
    report.write([Row("a", 1 / 3, "s")], path)
    (record,) = csv.DictReader(path.open(encoding="utf-8"))
    assert float(record["measured"]) == 1 / 3
    assert record["yardstick"] == ""


def test_floating_point_work_is_that_of_the_specification():
    """MAML at 1 x 1 x 1 with 2 x 3 units: 22 gradients of one step, one loss and one step of inference, by hand."""
    sizes = Sizes(tasks=1, copies=1, horizon=1, hidden=3)
    forward = 5 * 3 + 3 * 3 + 3 * 4
    gradient = 2 * forward + (3 * 3 + 3 * 4)
    expected = 2 * (22 * gradient + 2 * forward) / 1e9
    assert meta_update_gflop(make_method("MAML", sizes), sizes, 5, 2, 1) == pytest.approx(expected)
