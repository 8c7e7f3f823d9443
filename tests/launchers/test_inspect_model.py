"""The inspection of a run's models from the command line's request to files, and its refusals."""

import csv
import json
import shutil
from pathlib import Path

import experiment_tools as tools
import gin
import numpy as np
import pytest
from absl import logging
from experiment_tools import assert_help_is_quick, contents

from mbmpo import inspection_run
from mbmpo.inspection_request import InspectionRequest
from metarl.experiment import front_door, gin_front_door, saved_run
from metarl.experiment.checkpoints import CheckpointStore
from metarl.experiment.errors import UserError
from metarl.experiment.run_directory import RunDirectory

PROGRAM = "launchers.inspect_model"
TINY = """# MB-MPO at the smallest size, for tests.
include 'configs/base/mbmpo/mbmpo.gin'

FAMILY = @Point2D()
ITERATIONS = 2
META_BATCH_SIZE = 2
NUM_MODELS = 2
HORIZON = 8
INITIAL_RANDOM_STEPS = 40
IMAGINED_ROLLOUTS_PER_TASK = 2
META_STEPS = 1
MODEL_MAX_EPOCHS = 2
MODEL_HIDDEN_SIZES = [8]
MBMPOLearner.plasticity = @PointPlasticity()
PointPlasticity.resolution = 5
"""
NO_MODELS = """import metarl.experiment.experiment
import mbmpo.families
import mbmpo.methods

Experiment.learner = @TRPOLearner()
Experiment.iterations = 1
TRPOLearner.policy = @GaussianMLPPolicy()
TRPOLearner.family = @Point2D()
TRPOLearner.update = @TRPO()
TRPOLearner.copies = 2
TRPOLearner.horizon = 5
"""
FIGURES = {"open_loop_0.png", "error_by_step.png", "one_step.png", "plasticity.png"}
TABLES = {
    "open_loop_0.csv", "error_by_step.csv", "one_step_error.csv", "one_step_by_age.csv", "one_step_by_change.csv",
    "one_step_histogram.csv",
}  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    (folder / "tiny.gin").write_text(TINY)
    assert front_door.run(front_door.Command([str(folder / "tiny.gin")], logdir=str(folder / "run"))) == 0
    return folder / "run"


@pytest.fixture
def run(trained, tmp_path, monkeypatch):
    """A copy of a finished run, `run` in the working directory."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, tmp_path / "run")
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.INFO)
    yield tmp_path / "run"
    logging.set_verbosity(verbosity)


def inspect(request=None, which="latest", directory="run"):
    saved = saved_run.find(directory, which, allow_untrained=True)
    return inspection_run.run(saved, request or InspectionRequest(rollouts=3, drawn=1))


def mistake(request=None, which="latest", directory="run"):
    """Inspects, which must be refused with one line and leave the working directory alone; returns the line."""
    before = contents(".")
    with pytest.raises(UserError) as caught:
        inspect(request, which, directory)
    assert contents(".") == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


def rows(path):
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def without_plots(folder):
    return {name: data for name, data in contents(folder).items() if not name.startswith("plots")}


def test_help_needs_nothing_heavy_and_less_than_a_second():
    assert_help_is_quick(PROGRAM, "--rollouts", "--horizon", "--checkpoint")


def test_every_flag_reaches_the_inspection(run):
    before = contents("run")
    done = tools.launch(
        PROGRAM, "--run=run", "--checkpoint=1", "--rollouts=3", "--horizon=4", "--actions=random", "--drawn=1",
        "--seed=7",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "one step, fresh rollouts" in done.stderr
    assert without_plots("run") == before
    folder = run / "plots" / "iteration_00000001_001"
    assert {path.name for path in folder.iterdir()} == FIGURES | TABLES | {"plasticity.npz", "inspection.json"}
    for name in FIGURES:
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    summary = json.loads((folder / "inspection.json").read_text())
    assert (summary["iteration"], summary["rollouts"], summary["horizon"], summary["seed"]) == (1, 3, 4, 7)
    assert (summary["actions"], summary["models"], summary["method"]) == ("random", 2, "MBMPOLearner")
    assert summary["versions"]["tensorflow"].startswith("2.")
    one_step = rows(folder / "one_step_error.csv")
    assert [(row["data"], row["dimension"]) for row in one_step] == [
        ("buffer", "0"), ("buffer", "1"), ("fresh", "0"), ("fresh", "1"),
    ]  # fmt: skip
    table = summary["table"]
    relative = [float(row["rmse_mean"]) / float(row["scale"]) for row in one_step[:2]]
    assert table[0]["error_of_mean"] == pytest.approx(np.sqrt(np.mean(np.square(relative))))
    steps = rows(folder / "error_by_step.csv")
    assert [(row["step"], row["dimension"]) for row in steps[:3]] == [("1", "0"), ("1", "1"), ("2", "0")]
    assert len(steps) == 2 * 4
    path = rows(folder / "open_loop_0.csv")
    assert path[0]["real"] == path[0]["model_0"] == path[0]["mean"]
    assert path[2]["real"] != path[2]["model_0"]
    with np.load(folder / "plasticity.npz", allow_pickle=False) as maps:
        assert maps["kl"].shape == maps["std"].shape == (1, 5, 5)
        np.testing.assert_allclose(maps["extent"], [-1.8, 1.8, -1.8, 1.8])


def test_each_call_gets_a_folder_and_the_same_seed_the_same_numbers(run):
    """While the run is in training, too."""
    directory = RunDirectory("run")
    directory.acquire()
    before = contents("run")
    assert inspect() == 0
    assert inspect() == 0
    assert inspect(InspectionRequest(rollouts=3, drawn=1, seed=9)) == 0
    assert without_plots("run") == before
    directory.release()
    names = sorted(path.name for path in (run / "plots").iterdir())
    assert names == [f"iteration_00000002_00{i}" for i in (1, 2, 3)]
    first, second, other = (contents(run / "plots" / name) for name in names)
    for name in TABLES:
        assert first[name] == second[name]
    assert first["open_loop_0.csv"] != other["open_loop_0.csv"]
    assert first["one_step_by_age.csv"] == other["one_step_by_age.csv"]  # the buffer's, whatever the seed


def test_a_run_without_models_is_refused_by_name(run):
    Path("trpo/checkpoints").mkdir(parents=True)
    Path("trpo/operative_config.gin").write_text(NO_MODELS)
    learner = gin_front_door.build(gin_front_door.parse(["trpo/operative_config.gin"])).learner
    CheckpointStore(Path("trpo/checkpoints")).save(1, learner.state())
    assert "is a run of TRPOLearner, which learns no dynamics models" in mistake(directory="trpo")


def test_a_run_with_fake_models_is_rebuilt(run):
    """gin lists the macros of the models that the fake ones replace as used, and nothing that uses them."""
    Path("tiny.gin").write_text(TINY)
    fakes = ["ENSEMBLE = @FakePointEnsemble()", "FakePointEnsemble.num_models = %NUM_MODELS"]
    config = gin_front_door.parse(["tiny.gin"], fakes)
    learner = gin_front_door.build(config).learner
    Path("fake/checkpoints").mkdir(parents=True)
    Path("fake/operative_config.gin").write_text(gin.operative_config_str())
    CheckpointStore(Path("fake/checkpoints")).save(1, learner.state())
    assert type(saved_run.build_learner(saved_run.find("fake")).ensemble).__name__ == "FakePointEnsemble"


def test_models_that_were_never_fitted_are_refused(run):
    assert "before the first model fit" in mistake(which="0")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--run=run", "--rollouts=0"], "--rollouts must be at least 1"),
        (["--run=run", "--horizon=0"], "--horizon must be at least 1"),
        (["--run=run", "--actions=ranom"], "did you mean 'random'?"),
        (["--run=runn"], "did you mean 'run'?"),
        (["--run=run", "--checkpoint=7"], "no checkpoint of iteration 7"),
        (["run"], "unexpected argument 'run'"),
        ([], "which run?"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line_and_exit_code_2(run, arguments, words):
    before = contents(".")
    done = tools.launch(PROGRAM, *arguments)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert words in done.stderr
    assert contents(".") == before


def test_a_place_that_cannot_be_written_to_is_told_before_any_work(run):
    (run / "plots").write_text("a file")
    assert "plots is not a folder" in mistake()
