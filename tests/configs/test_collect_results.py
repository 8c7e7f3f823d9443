"""The curves of runs, collected from their folders: nothing lost, and both families."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "supplement" / "collect_results.py"
SESSION = {"git_commit": "c0ffee", "tensorflow": "2.21.0"}


def make_run(folder, columns):
    """A run's folder with three rows of progress."""
    folder.mkdir()
    with (folder / "progress.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["iteration", *columns])
        for i in range(3):
            writer.writerow([i + 1, *(values[i] for values in columns.values())])
    (folder / "versions.json").write_text(json.dumps({**SESSION, "sessions": [SESSION, SESSION]}))


@pytest.fixture
def runs(tmp_path):
    make_run(
        tmp_path / "tesp",
        {
            "return/fast_update_0": [-9.5, -8, -7],
            "return/fast_update_10": [-9, -5, -0.1234567890123456],
            "return/fast_update_2": [-9, -6, -4],
            "validation_train/return_10": ["", -3, ""],
            "validation_test_1/return_10": ["", -4, ""],
            "validation_test_2/return_10": ["", "", ""],
            "env_steps/total": [100, 200, 300],
            "time/meta_update": [3600, 1800, 1800],
            "time/validation": [0.5, 900, 0.5],
        },
    )
    make_run(
        tmp_path / "mbmpo",
        {
            "real/return": [-50, 10, 20],
            "pre_update/return": ["", 15, 25],
            "env_steps/counted": [2000, 4000, 6000],
            "env_steps/total": [2100, 4200, 6300],
            "time/iteration": [1800, 1800, 3600],
        },
    )
    return tmp_path


def collect(folder, *runs):
    command = [sys.executable, str(SCRIPT), "--name=both", f"--output={folder}/results", "--line=nothing: to do:-5.5"]
    subprocess.run([*command, *(f"--run={run}" for run in runs)], check=True, capture_output=True, timeout=120)


def test_files_of_two_families(runs):
    collect(runs, f"TESP:{runs}/tesp", f"MB-MPO (TRPO):{runs}/mbmpo")
    results = runs / "results"
    assert {path.name for path in results.iterdir()} == {
        "both.json", "both.png", "both_tesp.csv", "both_mb_mpo_trpo.csv",
    }  # fmt: skip
    for copy, run in (("both_tesp", "tesp"), ("both_mb_mpo_trpo", "mbmpo")):
        copied, original = ((folder).read_text() for folder in (results / f"{copy}.csv", runs / run / "progress.csv"))
        assert copied.splitlines() == original.splitlines()
    facts = json.loads((results / "both.json").read_text())
    assert facts["TESP"] == {
        "meta_updates": 3, "wall_clock_hours": 2.25, "env_steps_total": 300, "sessions": [SESSION, SESSION],
    }  # fmt: skip
    assert facts["MB-MPO (TRPO)"]["wall_clock_hours"] == 2.0
    assert facts["MB-MPO (TRPO)"]["env_steps_counted"] == 6000
    assert (results / "both.png").read_bytes().startswith(b"\x89PNG")


def test_curves_are_those_of_the_columns(runs, collect_results):
    tesp, mbmpo = (collect_results.read_rows(runs / name) for name in ("tesp", "mbmpo"))
    assert collect_results.last_round(tesp) == 10
    assert collect_results.last_round(mbmpo) is None
    figure = collect_results.figure_of({"A": tesp, "B": mbmpo}, {"nothing": -5.5})
    training, validation = figure.axes
    drawn = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in training.lines}
    assert drawn["A, 10 fast-updates"] == ([1, 2, 3], [-9, -5, -0.1234567890123456])
    assert drawn["A, none"] == ([1, 2, 3], [-9.5, -8, -7])
    assert drawn["B, before adaptation"] == ([4000, 6000], [15, 25])
    assert drawn["B, while collecting data"] == ([2000, 4000, 6000], [-50, 10, 20])
    assert "B, after adaptation" not in drawn
    assert drawn["nothing"][1] == [-5.5, -5.5]
    drawn = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in validation.lines}
    assert drawn["A, D"] == ([2], [-3])
    assert drawn["A, D'"] == ([2], [-4])
    assert "A, D''" not in drawn
    assert len(collect_results.figure_of({"B": mbmpo}, {}).axes) == 1
