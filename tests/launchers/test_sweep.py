"""The sweep launcher: its mistakes, and one real sweep of two runs from training to the figure."""

import csv
import os
import subprocess

import experiment_tools as tools
import pytest
from experiment_tools import assert_help_is_quick, contents, rows, toy  # noqa: F401

from metarl.experiment import sweep_check, sweep_command
from metarl.experiment.errors import UserError
from metarl.experiment.sweeps import FINISHED, SweepRun

PROGRAM = "launchers.sweep"
TINY = (
    "ITERATIONS = 2",
    "META_BATCH_SIZE = 2",
    "ROLLOUTS_PER_TASK = 2",
    "HORIZON = 5",
    "HIDDEN_SIZES = [4]",
    "INNER_UPDATES = 1",
    "MetaUpdate.num_evaluations = 2",
    "TespLearner.num_goals = 2",
    "Validation.num_goals = 2",
    "Validation.frequency = 1",
    "FinalTable.num_goals = 0",
)


@pytest.fixture(autouse=True)
def _working_directory(toy):  # noqa: F811
    return toy


def launch(*arguments):
    return tools.launch(PROGRAM, *arguments, timeout=300)


def test_help_needs_nothing_heavy_and_less_than_a_second():
    assert_help_is_quick(PROGRAM, "--gin_file", "--sweep", "--seeds", "--jobs", "--ray_address", "--cpus_per_run")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "error: which experiment? Give --gin_file=configs/<name>.gin"),
        (["--gin_file=toi.gin", "--seeds=1"], "error: --gin_file: no gin file 'toi.gin'; did you mean 'toy.gin'?"),
        (["--gin_file=toy.gin", "--seeds=1", "--jobs=0"], "error: flag --jobs=0: 0 is not a positive integer"),
        (
            ["--gin_file=toy.gin", "--sweep=META_BATCHSIZE=[1]"],
            "error: --sweep: the config has no macro 'META_BATCHSIZE'",
        ),
        (["--gin_file=toy.gin", "--from_header"], "error: --from_header: toy.gin has no line '# sweep: NAME=[...]'"),
        (["--gin_file=toy.gin", "--seeds=1", "--logdir=toy.gin"], "error: cannot use --logdir toy.gin"),
        # What only an import can tell is told before the first run, too.
        (
            ["--gin_file=toy.gin", "--sweep=Hill.hieght=[1, 2]", "--seeds=1,2"],
            "error: --sweep: 'Hill.hieght = 1': 'Hill' has no parameter 'hieght'; did you mean 'height'?",
        ),
        (
            ["--gin_file=toy.gin", "--sweep=META_BATCH_SIZE=[2, 4]", "--gin_param=ITERATION=5"],
            "error: --gin_param='ITERATION=5': nothing in this experiment uses ITERATION; did you mean 'ITERATIONS'?",
        ),
        (["--gin_file=toy.gin", "--seed=1"], "error: Unknown command line flag 'seed'. Did you mean: seeds ?"),
    ],
)
def test_a_mistake_is_one_line_on_stderr_and_exit_code_2(tmp_path, arguments, message):
    before = contents(tmp_path)
    done = launch(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert contents(tmp_path) == before


def test_a_value_that_is_wrong_in_some_runs_only_is_theirs_to_tell(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", tools.program_environment()["PYTHONPATH"])
    before = contents(tmp_path)
    wrong, right = (SweepRun(f"run_{value}", {"Hill.steepness": value}, 1) for value in ("-1", "2"))
    sweep_check.require_buildable(("toy.gin",), (), (wrong, right))
    with pytest.raises(UserError, match=r"^steepness must be at least 0\.0, got -1"):
        sweep_check.require_buildable(("toy.gin",), (), (wrong,))
    assert contents(tmp_path) == before


def test_a_gin_file_edited_between_two_calls_is_refused_by_the_rule_of_the_run_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", tools.program_environment()["PYTHONPATH"])
    request = sweep_command.Request(("toy.gin",), (), ("META_BATCH_SIZE=[2, 3]",), seeds="1", logdir="s")
    index = sweep_command.make_index(request)
    for run in index.runs:
        tools.run(*run.bindings, logdir=index.run_path(run), seed=1)
        run.state = FINISHED
    index.write()
    original = (tmp_path / "toy.gin").read_text()
    (tmp_path / "toy.gin").write_text(original + "Experiment.checkpoint_every = 3\nToyLearner.learning_rate = 0.1\n")
    assert [run.state for run in sweep_command.make_index(request).runs] == [FINISHED, FINISHED]

    (tmp_path / "toy.gin").write_text(original + "ToyLearner.learning_rate = 0.5\n")
    before = contents(tmp_path)
    done = launch("--gin_file=toy.gin", "--sweep=META_BATCH_SIZE=[4]", "--seeds=1", "--logdir=s")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"error: {index.run_path(index.runs[0])} holds a run of another configuration: "
        "ToyLearner.learning_rate is 0.1 there and 0.5 here; choose another --logdir\n"
    )
    assert contents(tmp_path) == before


def test_dry_run_lists_the_runs_and_makes_nothing(tmp_path):
    before = contents(tmp_path)
    done = launch("--gin_file=toy.gin", "--sweep=META_BATCH_SIZE=[2, 4]", "--seeds=1,2", "--dry_run")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert [line.split()[:3] for line in lines[:-1]] == [
        ["pending", f"META_BATCH_SIZE={size}", f"seed={seed}"] for size in (2, 4) for seed in (1, 2)
    ]
    assert lines[-1].startswith("4 runs, 4 to do, in runs/toy/sweep_META_BATCH_SIZE_")
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "command", ["launchers.sweep --gin_file=toy.gin --seeds=1,2 --dry_run", "launchers.train --list"]
)
def test_a_reader_that_goes_before_the_end_is_no_mistake(command):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*tools.program(command.split()[0]), *command.split()[1:]],
        stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60, env=tools.program_environment(),
    )  # fmt: skip
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_sweep_of_two_runs_is_trained_listed_not_repeated_and_plotted(tmp_path):
    command = [
        "--gin_file=configs/maml_point.gin",
        *(f"--gin_param={binding}" for binding in TINY),
        "--sweep=inner_lr=[0.02]",
        "--seeds=1,2",
        "--jobs=2",
        "--logdir=sweep",
    ]
    done = launch(*command)
    assert done.returncode == 0, done.stderr
    assert "2 runs: 2 finished; sweep/index.csv" in done.stderr
    with open("sweep/index.csv", newline="") as file:
        index = list(csv.DictReader(file))
    assert [(row["MAML.inner_lr"], row["seed"], row["state"]) for row in index] == [
        ("0.02", "1", "finished"), ("0.02", "2", "finished")
    ]  # fmt: skip
    trained = [rows(f"sweep/{row['run']}") for row in index]
    assert [len(metrics) for metrics in trained] == [2, 2]
    assert trained[0] != trained[1]
    before = contents(tmp_path / "sweep")
    again = launch(*command)
    assert again.returncode == 0
    assert "2 of 2 runs are finished already" in again.stderr
    after = contents(tmp_path / "sweep")
    assert {name for name in before if before[name] != after[name]} <= {"lock"}

    plotted = tools.launch("launchers.plot", "sweep", "--layout=tesp", "--output=plots")
    assert plotted.returncode == 0, plotted.stderr
    with open("plots/tesp_meta_updates.csv", newline="") as file:
        drawn = list(csv.DictReader(file))
    means = {(row["panel"], row["meta-updates"]): float(row["mean"]) for row in drawn}
    returns = [float(metrics[-1]["validation_test_2/return_1"]) for metrics in trained]
    assert means["Point, D″", "2"] == pytest.approx(sum(returns) / 2)
    assert {row["group"] for row in drawn} == {"MAML"}
