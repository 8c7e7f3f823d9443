"""The evaluation of runs on disk: flags to files, refusals, and a run folder that stays as it was."""

import csv
import json
import shutil
import threading
from pathlib import Path

import experiment_tools as tools
import numpy as np
import pytest
from absl import logging
from experiment_tools import TOY, assert_help_is_quick, contents

from metarl.experiment import evaluation, front_door, saved_run
from metarl.experiment.checkpoints import CheckpointStore, DamagedCheckpointError, list_checkpoints
from metarl.experiment.errors import UserError
from metarl.experiment.learner import EvaluationRequest
from metarl.experiment.run_directory import RunDirectory
from tesp.learner import TespLearner

PROGRAM = "launchers.evaluate"
TINY = """# Point at the smallest size, for tests.
import tesp.families.point
import tesp.learner

SEED = 1
ITERATIONS = 2
META_BATCH_SIZE = 2
ROLLOUTS_PER_TASK = 2
HORIZON = 10

Experiment.learner = @TespLearner()
Experiment.iterations = %ITERATIONS
Experiment.checkpoint_every = 1
TespLearner.family = @Point()
TespLearner.meta_batch_size = %META_BATCH_SIZE
TespLearner.seed = %SEED
TespLearner.num_goals = 5
TespLearner.adaptation = @FastAdaptation()
TespLearner.meta_update = @MetaUpdate()
TespLearner.final = @FinalTable()
FastAdaptation.rollouts_per_task = %ROLLOUTS_PER_TASK
FastAdaptation.horizon = %HORIZON
FastAdaptation.inner_updates = 1
MetaUpdate.num_evaluations = 2
FinalTable.num_goals = 1
"""
MAML = ("TespLearner.method = @MAML()", "MAML.hidden_sizes = (4, 4)")
TESP = (
    "TespLearner.method = @TESP()", "TESP.hidden_sizes = (4, 4)", "TESP.gru_units = 4",
    "TESP.embedding_dim = 2", "TESP.embedding_coeff = 0.01",
)  # fmt: skip
ONE_GOAL = EvaluationRequest(tasks=((0.5, -0.3),), fast_updates=0)


def train(folder, logdir, params):
    """Trains in this process; the config file is deleted, so that nothing afterwards can depend on it."""
    config = folder / "tiny.gin"
    config.write_text(TINY)
    assert front_door.run(front_door.Command([str(config)], params, logdir=str(folder / logdir))) == 0
    config.unlink()
    return folder / logdir


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return train(tmp_path_factory.mktemp("runs"), "maml", MAML)


@pytest.fixture
def run(trained, tmp_path, monkeypatch):
    """A copy of a finished run of MAML, `run` in the working directory."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, tmp_path / "run")
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.INFO)
    yield tmp_path / "run"
    logging.set_verbosity(verbosity)


def evaluate(request=ONE_GOAL, which="latest", directory="run", **options):
    return evaluation.run(directory, which, request, **options)


def mistake(request=ONE_GOAL, which="latest", directory="run", **options):
    """Evaluates, which must be refused with one line and leave the working directory alone; returns the line."""
    before = contents(".")
    with pytest.raises(UserError) as caught:
        evaluate(request, which, directory, **options)
    assert contents(".") == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


def launch(*arguments):
    return tools.launch(PROGRAM, *arguments)


def rows(path):
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def without_evaluations(folder):
    return {name: data for name, data in contents(folder).items() if not name.startswith("evaluations")}


def test_help_needs_nothing_heavy_and_less_than_a_second():
    assert_help_is_quick(PROGRAM, "--goal_set")


def test_every_flag_reaches_the_evaluation(tmp_path, monkeypatch):
    """TESP from the command line, in a folder of its own; the run is as before."""
    monkeypatch.chdir(tmp_path)
    train(tmp_path, "run", [*TESP, "ITERATIONS = 1"])
    before = contents("run")
    done = launch(
        "--run=run", "--checkpoint=1", "--goal_set=train", "--goal_set=test_2", "--goal=0.5,-0.3", "--goal=-4,2",
        "--num_goals=3", "--fast_updates=2", "--episodes=3", "--noise_sigma=0.1", "--noise_kind=state", "--seed=7",
        "--output=results/first",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert contents("run") == before
    assert "Traceback" not in done.stderr
    assert "95% interval" in done.stderr
    assert "after the warm-up round" in done.stderr
    summary = json.loads((tmp_path / "results/first/evaluation.json").read_text())
    assert (summary["iteration"], summary["seed"], summary["fast_updates"]) == (1, 7, 2)
    assert summary["rollouts_per_task"] == 3
    assert summary["goals"] == {"train": 3, "test_2": 3, "explicit": 2}
    assert summary["noise_sigma"] == {"train": 0.0, "test_2": 0.1, "explicit": 0.1}
    assert summary["noise_kind"]["test_2"] == "state"
    assert summary["env_steps"] > 8 * 4 * 3 * 10 * 0.5
    assert summary["versions"]["tensorflow"].startswith("2.")
    assert summary["trained_with"][-1]["python"] == summary["versions"]["python"]
    assert any("warm-up" in note for note in summary["notes"])
    per_task = rows("results/first/per_task.csv")
    assert [row["goal_set"] for row in per_task] == ["train"] * 3 + ["test_2"] * 3 + ["explicit"] * 2
    assert [(row["goal_x"], row["goal_y"]) for row in per_task[-2:]] == [("0.5", "-0.3"), ("-4.0", "2.0")]
    pooled = rows("results/first/pooled.csv")
    assert [row["fast_updates"] for row in pooled] == ["0", "1", "2"] * 4
    assert float(pooled[-1]["return"]) == pytest.approx(sum(float(row["return_2"]) for row in per_task) / 8)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--run=run", "--goal=0.5"], "--goal=0.5: a goal of point is 2 numbers"),
        (["--run=run", "--fast_updates=-1"], "--fast_updates must be at least 0"),
        (["--run=run", "--episodes=many"], "--episodes"),
        (["--run=run", "--goalset=train"], "goal_set"),
        (["--run=nowhere"], "there is no such folder"),
        (["run"], "unexpected argument 'run'"),
        ([], "which run?"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line_and_exit_code_2(run, arguments, words):
    before = contents(".")
    done = launch(*arguments)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert words in done.stderr
    assert contents(".") == before


def test_each_call_gets_a_folder_and_the_same_seed_the_same_bytes(run):
    before = contents("run")
    request = EvaluationRequest(task_sets=("test_1",), num_tasks=3, seed=5)
    assert evaluate(request) == 0
    assert evaluate(request) == 0
    assert evaluate(EvaluationRequest(task_sets=("test_1",), num_tasks=3, seed=6), "1") == 0
    assert without_evaluations("run") == before
    names = sorted(path.name for path in (run / "evaluations").iterdir())
    assert names == ["iteration_00000001_001", "iteration_00000002_001", "iteration_00000002_002"]
    first, second, other = (contents(run / "evaluations" / names[i]) for i in (1, 2, 0))
    assert first.keys() == second.keys() == {"per_task.csv", "pooled.csv", "evaluation.json"}
    for name in ("per_task.csv", "pooled.csv"):
        assert first[name] == second[name]
        assert first[name] != other[name]


def test_a_run_in_training_can_be_evaluated_and_goes_on(run):
    directory = RunDirectory("run")
    directory.acquire()
    before = contents("run")
    assert evaluate() == 0
    assert without_evaluations("run") == before
    directory.release()
    Path("tiny.gin").write_text(TINY)
    assert front_door.run(front_door.Command(["tiny.gin"], [*MAML, "ITERATIONS = 3"], logdir="run")) == 0
    assert max(list_checkpoints("run")) == 3
    assert len(rows("run/progress.csv")) == 3


def test_a_moved_run_a_checkpoint_by_path_and_an_evaluation_elsewhere(run):
    Path("archive").mkdir()
    run.rename("archive/old")
    path = "archive/old/checkpoints/checkpoint_00000001.npz"
    before = contents("archive")
    assert evaluate(which=path, directory="archive/old", output="by_path") == 0
    assert evaluate(which=Path(path).name, directory="archive/old", output="by_name") == 0
    assert evaluate(which="1", directory="archive/old", output="by_number") == 0
    assert contents("archive") == before
    assert json.loads(Path("by_path/evaluation.json").read_text())["iteration"] == 1
    assert contents("by_path")["per_task.csv"] == contents("by_number")["per_task.csv"]
    assert contents("by_name")["per_task.csv"] == contents("by_number")["per_task.csv"]
    assert evaluate(directory="archive/old", output="archive/old/evaluations/mine") == 0


def test_the_newest_checkpoint_may_be_damaged_or_deleted_meanwhile(run, monkeypatch):
    newest = run / "checkpoints" / "checkpoint_00000002.npz"
    whole = newest.read_bytes()
    newest.write_bytes(whole[:-40])
    assert saved_run.find("run").checkpoint.iteration == 1
    assert newest.exists()
    assert "is damaged" in mistake(which="2")
    newest.write_bytes(whole)

    def deleted_by_the_trainer(path):
        if path.name == newest.name:
            path.unlink()
            raise DamagedCheckpointError("No such file")
        return load(path)

    load = saved_run.load_checkpoint
    monkeypatch.setattr(saved_run, "load_checkpoint", deleted_by_the_trainer)
    assert saved_run.find("run").checkpoint.iteration == 1


def test_checkpoints_can_be_read_while_they_come_and_go(tmp_path):
    (tmp_path / "operative_config.gin").touch()
    store = CheckpointStore(tmp_path / "checkpoints", keep=1)
    store.save(1, {"weights": np.zeros(20_000)})
    trainer = threading.Thread(target=lambda: [store.save(i, {"weights": np.full(20_000, i)}) for i in range(2, 80)])
    trainer.start()
    found = []
    while trainer.is_alive():
        checkpoint = saved_run.find(str(tmp_path)).checkpoint
        found.append(checkpoint.iteration)
        assert checkpoint.iteration == 1 or np.all(checkpoint.arrays["weights"] == checkpoint.iteration)
    trainer.join()
    assert found == sorted(found)
    assert len(set(found)) > 2


def test_untrained_weights_are_refused_unless_asked_for(run):
    assert "no trained weights (--allow_untrained" in mistake(which="0")
    for path in (run / "checkpoints").glob("*_0000000[12].npz"):
        path.unlink()
    assert "before the first meta-update" in mistake()
    assert evaluate(allow_untrained=True) == 0
    assert (run / "evaluations" / "iteration_00000000_001" / "evaluation.json").exists()
    shutil.rmtree(run / "checkpoints")
    assert "run has no checkpoint: there are no trained weights" in mistake(allow_untrained=True)
    assert "run has no checkpoint: there are no trained weights" in mistake(which="2")


def test_wrong_folders_and_checkpoints_are_refused_by_name(run):
    assert "--run=rum: there is no such folder; did you mean 'run'?" in mistake(directory="rum")
    assert "which run?" in mistake(directory=None)
    Path("runs/a").mkdir(parents=True)
    assert "--run=runs is not a run" in mistake(directory="runs")
    run.rename("runs/a/seed_1")
    assert "did you mean 'runs/a/seed_1'?" in mistake(directory="runs")
    Path("runs/a/seed_1").rename("run")
    assert "no checkpoint of iteration 7; the nearest is 2" in mistake(which="7")
    assert "there is no such file; did you mean 'latest'?" in mistake(which="lastest")
    assert "there is no such file" in mistake(which="run/checkpoints")
    Path("other.npz").write_bytes(b"not a checkpoint")
    assert "other.npz is damaged" in mistake(which="other.npz")
    (run / "checkpoints" / "checkpoint_00000002.npz").write_bytes(b"")
    (run / "checkpoints" / "checkpoint_00000001.npz").write_bytes(b"")
    (run / "checkpoints" / "checkpoint_00000000.npz").write_bytes(b"")
    assert "none of the checkpoints in run/checkpoints is readable" in mistake()


def test_a_configuration_that_does_not_build_is_refused(run):
    config = run / "operative_config.gin"
    text = config.read_text()
    config.write_text(text.replace("MAML.hidden_sizes = (4, 4)", "MAML.hidden_sizes = (4, 6)"))
    assert "checkpoint_00000002.npz does not fit run/operative_config.gin" in mistake()
    config.write_text(text.replace("MAML.hidden_sizes", "MAML.sizes_hidden"))
    assert "'MAML' has no parameter 'sizes_hidden'" in mistake()


def test_results_are_never_overwritten_nor_put_among_the_run_s_files(run):
    for output in ("run", "run/checkpoints", "run/new", "run/evaluations", "elsewhere/../run/tensorboard"):
        assert "is inside the run" in mistake(output=output)
    assert evaluate(output="mine") == 0
    assert "--output=mine holds per_task.csv already" in mistake(output="mine")
    Path("file").touch()
    assert "is not a folder" in mistake(output="file/x")
    (run / "evaluations").symlink_to("../mine")
    assert "leads out of the run's folder" in mistake()


def test_bad_requests_are_refused_before_anything_is_written(run):
    request = EvaluationRequest(task_sets=("test_3",))
    assert "--goal_set must be one of train, test_1, test_2, all; got 'test_3'" in mistake(request)
    assert "did you mean" in mistake(request)
    request = EvaluationRequest(task_sets=("train",), num_tasks=6)
    assert "the goal set 'train' has 5 goals" in mistake(request)


@pytest.mark.parametrize("output", ["/proc/result/folder", "/proc", "x" * 300])
def test_an_output_that_cannot_be_written_is_refused_before_the_first_step(run, monkeypatch, output):
    def stepped(*_):
        raise AssertionError

    monkeypatch.setattr(TespLearner, "evaluate", stepped)
    before = contents(".")
    assert "annot write to" in mistake(output=output)
    assert contents(".") == before


@pytest.mark.parametrize("output", [None, "new/result"])
def test_folders_for_a_result_that_does_not_come_are_removed(run, monkeypatch, output):
    def interrupted(*_):
        assert Path(output or "run/evaluations").is_dir()
        raise KeyboardInterrupt

    monkeypatch.setattr(TespLearner, "evaluate", interrupted)
    before = contents(".")
    with pytest.raises(KeyboardInterrupt):
        evaluate(output=output)
    assert contents(".") == before


@pytest.mark.parametrize("text", ["", "1;2", "a,b", "1,", "nan,0", "0,inf"])
def test_malformed_goals_are_refused(text):
    with pytest.raises(UserError, match="must be finite numbers") as error:
        evaluation.parse_tasks(["1,2", text], "--goal")
    assert f"--goal={text}" in str(error.value)


def test_goals_are_parsed_in_order():
    assert evaluation.parse_tasks(["1,2", " -0.5, 1e-1"], "--goal") == ((1.0, 2.0), (-0.5, 0.1))


def test_numbers_that_are_not_finite_end_with_exit_code_1(run, capsys, monkeypatch):
    saved = saved_run.find("run")
    before = contents("run")
    arrays = saved.checkpoint.arrays
    for name in arrays:
        if name.startswith("parameters/inner"):
            arrays[name] = arrays[name] * float("nan")
    monkeypatch.setattr(saved_run, "find", lambda *_, **__: saved)
    assert evaluate() == 1
    assert contents("run") == before
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: the return on goal 0 of explicit")


def test_a_learner_without_evaluation_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("toy.gin").write_text(TOY)
    assert front_door.run(front_door.Command(["toy.gin"], logdir="run")) == 0
    assert "ToyLearner cannot be evaluated apart from its training" in mistake()
