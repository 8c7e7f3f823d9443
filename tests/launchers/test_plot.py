"""The plot launcher: its mistakes, flags after folders, and that TensorFlow stays out."""

import subprocess
import sys

import experiment_tools as tools
import pytest
from experiment_tools import assert_help_is_quick, contents
from run_folders import make

from metarl.experiment.errors import UserError
from metarl.reporting import plot_command
from metarl.reporting.plot_command import Request

PROGRAM = "launchers.plot"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for seed in (1, 2):
        rows = [{"iteration": i, "return": i * seed, "env_steps/total": 10 * i} for i in (1, 2, 3)]
        make(tmp_path / "runs" / f"seed_{seed}", rows, seed=seed)
    (tmp_path / "empty").mkdir()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "return_vs_iteration.csv").write_text("precious")
    return tmp_path


def launch(*arguments):
    return tools.launch(PROGRAM, *arguments)


def test_help_needs_nothing_heavy_and_less_than_a_second():
    assert_help_is_quick(PROGRAM, "--x", "--y", "--group_by", "--layout", "--output")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "error: which runs? Give folders or globs"),
        (["rnus"], "error: there is no folder 'rnus'; did you mean 'runs'?"),
        (["runs", "--layout=tsep"], "error: --layout must be one of columns, tesp, mbmpo; got 'tsep'; did you mean"),
        (["runs", "--layout=tesp", "--y=return"], "error: --layout=tesp says what is drawn; leave --y away"),
        (
            ["runs", "--layout=mbmpo", "--statistic=both", "--x=time", "--points=2"],
            "error: --layout=mbmpo says what is drawn; leave --x, --statistic, --points away",
        ),
        (["runs", "--x=iteration", "--output=taken"], "error: taken/return_vs_iteration.csv exists; --overwrite"),
        (["runs", "--output=runs/seed_1/progress.csv/x"], "error: cannot write to runs/seed_1/progress.csv/x"),
        (["runs", "--group_bi=method"], "error: Unknown command line flag 'group_bi'. Did you mean: group_by ?"),
    ],
)
def test_a_mistake_is_one_line_on_stderr_and_exit_code_2(folder, arguments, message):
    before = contents(folder)
    done = launch(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patterns": ("empty",)}, "empty holds no run"),
        ({"y": ("retrun",)}, "--y: no run has a column 'retrun'; did you mean 'return'?"),
        ({"layout": "tesp"}, "--layout=tesp: no run has columns validation_<set>/return_<k>"),
        ({"statistic": "median"}, "--statistic must be one of both, mean, iqm"),
        ({"group_by": ("INER_LR",)}, "--group_by: no run has a macro or binding 'INER_LR'; did you mean 'INNER_LR'?"),
        ({"group_by": ()}, "--group_by names nothing"),
        ({"group_by": ("method", "")}, "--group_by names nothing"),
        ({"name": "../x"}, "--name '../x' cannot name a folder or file: only letters, digits, '.', '_' and '-'"),
        ({"points": 1}, "--points must be at least 2"),
    ],
)
def test_more_mistakes_that_change_nothing(folder, change, message):
    before = contents(folder)
    with pytest.raises(UserError) as caught:
        plot_command.run(Request(("runs",))._replace(**change))
    assert str(caught.value).startswith(message)
    assert contents(folder) == before


def test_runs_by_glob_with_flags_before_and_after_and_without_tensorflow(folder):
    before = contents(folder / "runs")
    command = [sys.executable, "-X", "importtime", "-m", PROGRAM, "--x=iteration", "runs/seed_*", "--statistic=iqm"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=tools.program_environment())
    assert done.returncode == 0, done.stderr
    assert "2 runs: wrote plots/return_vs_iteration (png, pdf, csv)" in done.stderr
    assert (
        (folder / "plots" / "return_vs_iteration.csv")
        .read_text()
        .splitlines()[1]
        .startswith("HalfCheetah,return,TESP,1,2,1.5,")
    )
    imported = {line.split("|")[-1].strip().split(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert "matplotlib" in imported
    assert not imported & {"tensorflow", "keras", "mujoco", "gymnasium"}
    assert "matplotlib.pyplot" not in done.stderr
    assert contents(folder / "runs") == before


@pytest.mark.parametrize("layout", ["columns", "tesp", "mbmpo"])
def test_a_setting_that_only_some_environments_have_groups_all(folder, layout):
    column = {"columns": "return", "tesp": "validation_train/return_0", "mbmpo": "return"}[layout]
    rows = [{"iteration": i, column: float(i), "env_steps/total": 10_000 * i} for i in (1, 2)]
    make(folder / "mixed" / "1", rows, inner_lr=0.1)
    make(folder / "mixed" / "2", rows, method="MBMPO", family="Point2D")
    request = Request(("mixed",), group_by=("TESP.inner_lr",), layout=layout, output="out", name="grouped")
    assert plot_command.run(request) == 0
    [path, *_] = sorted((folder / "out").glob("*.csv"))
    text = path.read_text()
    assert "HalfCheetah" in text
    assert "TESP.inner_lr = 0.1" in text
    assert "Point2D" in text
    assert "TESP.inner_lr = none" in text
    with pytest.raises(UserError, match="--group_by: no run has a macro or binding 'TESP"):
        plot_command.run(request._replace(group_by=("TESP.iner_lr",), name="wrong"))
