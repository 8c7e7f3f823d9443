"""MB-MPO's methods through the front door: kill and resume, evaluation, and mistakes of one line each."""

import csv
import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from experiment_tools import assert_same_run, contents, launch, read_until, start

from metarl.experiment import evaluation, front_door
from metarl.experiment.checkpoints import list_checkpoints
from metarl.experiment.errors import UserError
from metarl.experiment.learner import EvaluationRequest
from metarl.sampling.sampler import Sampler

COMMON = {"META_BATCH_SIZE": 4, "ROLLOUTS_PER_TASK": 1, "HORIZON": 8, "POLICY_HIDDEN_SIZES": [4], "ITERATIONS": 1}
MODELS = {
    "INITIAL_RANDOM_STEPS": 40, "NUM_MODELS": 2, "MODEL_HIDDEN_SIZES": [8, 8], "MODEL_MAX_EPOCHS": 2,
    "FAMILY": "@InvertedPendulum()",
}  # fmt: skip
MBMPO = {**COMMON, **MODELS, "IMAGINED_ROLLOUTS_PER_TASK": 2, "META_STEPS": 2}
METRPO = {**COMMON, **MODELS, "IMAGINED_STEPS": 64, "META_STEPS": 2}
MBMPC = {**COMMON, **MODELS, "NUM_CANDIDATES": 8, "PLANNING_HORIZON": 3}
del MBMPC["POLICY_HIDDEN_SIZES"]
RUNS = {
    "mbmpo": ("configs/mbmpo_half_cheetah.gin", MBMPO),
    "metrpo": ("configs/metrpo_half_cheetah.gin", METRPO),
    "mbmpc": ("configs/mbmpc_half_cheetah.gin", MBMPC),
    "maml": ("configs/maml_trpo_point_navigation.gin", COMMON),
    "trpo": ("configs/trpo_half_cheetah.gin", {**COMMON, "FAMILY": "@InvertedPendulum()"}),
}


def bindings(settings):
    return [f"{name} = {value}" for name, value in settings.items()]


def train(kind, logdir, *changes, **settings):
    config, defaults = RUNS[kind]
    return front_door.run(
        front_door.Command([config], [*bindings({**defaults, **settings}), *changes], seed=5, logdir=str(logdir))
    )


def rows(path):
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_killed_run_goes_on_by_the_same_command(tmp_path):
    """SIGKILL after the first of three iterations; the same command then gives the run that was left alone."""
    config, defaults = RUNS["mbmpo"]
    given = [f"--gin_param={line}" for line in bindings({**defaults, "ITERATIONS": 3})]
    command = ["launchers.train", f"--gin_file={config}", f"--logdir={tmp_path / 'killed'}", "--seed=5", *given]
    victim = start(*command)
    read_until(victim, "1/3  real ")
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    assert 0 <= max(list_checkpoints(tmp_path / "killed")) < 3
    assert train("mbmpo", tmp_path / "killed", ITERATIONS=3) == 0
    assert train("mbmpo", tmp_path / "straight", ITERATIONS=3) == 0
    assert_same_run(tmp_path / "killed", tmp_path / "straight")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A finished run of each kind."""
    folder = tmp_path_factory.mktemp("runs")
    for kind in RUNS:
        assert train(kind, folder / kind) == 0
    return folder


@pytest.mark.parametrize("kind", RUNS)
def test_runs_can_be_evaluated(runs, kind, tmp_path):
    run = runs / kind
    before = contents(run)
    adapts = kind in ("mbmpo", "maml")
    request = EvaluationRequest(
        num_tasks=3,
        fast_updates=2 if adapts else None,
        episodes=None if kind == "mbmpc" else 2,
        seed=7,
        task_sets=("drawn",),
        tasks=((0.5, -0.3), (0.1, 0.2)) if kind == "maml" else (),
    )
    for name in ("first", "second"):
        assert evaluation.run(str(run), "latest", request, output=str(tmp_path / name)) == 0
    assert contents(run) == before
    assert contents(tmp_path / "first")["per_task.csv"] == contents(tmp_path / "second")["per_task.csv"]
    per_task, pooled = rows(tmp_path / "first" / "per_task.csv"), rows(tmp_path / "first" / "pooled.csv")
    assert len(per_task) == (5 if kind == "maml" else 3)
    assert [row["fast_updates"] for row in pooled if row["task_set"] == "drawn"] == ["0", "1", "2"][
        : 3 if adapts else 1
    ]
    drawn = [float(row["return_0"]) for row in per_task if row["task_set"] == "drawn"]
    assert float(pooled[0]["return"]) == pytest.approx(np.mean(drawn))
    if kind == "maml":
        assert [(row["task_0"], row["task_1"]) for row in per_task[3:]] == [("0.5", "-0.3"), ("0.1", "0.2")]
    summary = json.loads((tmp_path / "first" / "evaluation.json").read_text())
    assert (summary["iteration"], summary["seed"]) == (1, 7)
    # Every one of three repetitions has a first complete episode, and the rows' steps were all counted.
    assert summary["env_steps"] >= sum(float(row["length_0"]) for row in per_task)


@pytest.mark.parametrize(
    ("kind", "request_", "words"),
    [
        ("mbmpo", {"tasks": ((0.5, 0.3),)}, "--goal=0.5,0.3: a task of inverted_pendulum is 0 numbers, got 2"),
        ("maml", {"tasks": ((0.5,),)}, "a task of point_navigation is 2 numbers, got 1"),
        ("maml", {"task_sets": ("train",)}, "--goal_set must be one of drawn, all; got 'train'"),
        ("mbmpo", {"noise_sigma": 0.1}, "--noise_sigma is for methods with a transition-noise study"),
        ("metrpo", {"fast_updates": 1}, "--fast_updates=1: METRPOLearner does not adapt"),
        ("trpo", {"fast_updates": 2}, "--fast_updates=2: TRPOLearner does not adapt"),
        ("mbmpc", {"fast_updates": 1}, "MBMPCLearner plans and does not adapt"),
        ("mbmpc", {"episodes": 2}, "MBMPCLearner plans and does not adapt"),
    ],
)
def test_bad_requests_are_one_line_and_write_nothing(runs, kind, request_, words):
    before = contents(runs)
    with pytest.raises(UserError) as caught:
        evaluation.run(str(runs / kind), "latest", EvaluationRequest(**request_))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert contents(runs) == before


def test_evaluation_by_the_command_line(runs, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(runs / "maml", run)
    done = launch(
        "launchers.evaluate", f"--run={run}", "--goal=0.5,-0.3", "--fast_updates=1", "--episodes=2", "--seed=3"
    )
    assert done.returncode == 0, done.stderr
    assert "95 % t-intervals" in done.stderr
    [folder] = (run / "evaluations").iterdir()
    assert len(rows(folder / "per_task.csv")) == 1


@pytest.mark.parametrize("kind", ["mbmpo", "mbmpc"])
def test_untrained_weights_are_refused(runs, kind, tmp_path):
    with pytest.raises(UserError, match="no trained weights"):
        evaluation.run(str(runs / kind), "0", EvaluationRequest(num_tasks=1))
    result = tmp_path / "result"
    request = EvaluationRequest(num_tasks=1)
    assert evaluation.run(str(runs / kind), "0", request, output=str(result), allow_untrained=True) == 0


def test_another_size_cannot_resume(runs):
    before = contents(runs / "mbmpo")
    with pytest.raises(UserError) as caught:
        train("mbmpo", runs / "mbmpo", ITERATIONS=2, NUM_MODELS=4)
    assert "num_models" in str(caught.value).lower()
    assert contents(runs / "mbmpo") == before


MISTAKES = [
    ("mbmpo", ["META_BATCH_SIZE = 5"], "meta_batch_size must be a multiple of the number of models, got 5 tasks and 2"),
    ("mbmpo", ["FAMILY = @HalfCheetahDirection()"], "half_cheetah_direction, which has no batch reward"),
    ("metrpo", ["FAMILY = @AntGoal()"], "METRPOLearner.family is ant_goal, which has no batch reward"),
    ("mbmpc", ["FAMILY = @PointNavigation()"], "MBMPCLearner.family is point_navigation, which has no batch reward"),
    ("mbmpo", ["import tesp.families", "FAMILY = @Wheeled()"], "wheeled, which has no batch reward"),
    ("mbmpo", ["import tesp.families", "FAMILY = @Wheeled()"], "@FixedGoal() makes one goal"),
    ("mbmpo", ["DynamicsEnsemble.valid_split_ratio = 0.0"], "leaves no validation rows"),
    ("mbmpo", ["DynamicsEnsemble.valid_split_ratio = 1.0"], "leaves no training rows"),
    ("metrpo", ["DynamicsEnsemble.valid_split_ratio = 0"], "leaves no validation rows"),
    ("mbmpc", ["DynamicsEnsemble.valid_split_ratio = 1"], "leaves no training rows"),
    ("mbmpo", ["DynamicsEnsemble.valid_split_ratio = 1.2"], "valid_split_ratio must be at most 1"),
    ("mbmpo", ["RealData.buffer_capacity = 1"], "leaves no training rows"),
    ("mbmpo", ["HORIZON = 1"], "RealData.horizon must be at least 2, got 1"),
    ("maml", ["HORIZON = 1"], "MAMLLearner.horizon must be at least 2, got 1"),
    ("trpo", ["HORIZON = 1"], "TRPOLearner.horizon must be at least 2, got 1"),
    ("mbmpo", ["HORIZON = 2.5"], "RealData.horizon must be an integer, got 2.5"),
    ("mbmpo", ["MBMPOLearner.meta_update = None"], "MBMPOLearner.meta_update must be such as @MetaTRPO(), got None"),
    ("mbmpo", ["META_UPDATE = @TRPOLearner"], "MBMPOLearner.meta_update must be such as @MetaTRPO()"),
    ("metrpo", ["METRPOLearner.update = @MetaTRPO()"], "METRPOLearner.update must be @TRPO()"),
    ("mbmpc", ["PLANNER = @MetaTRPO()"], "MBMPCLearner.planner must be such as @RandomShooting()"),
    ("mbmpo", ["ENSEMBLE = 5"], "MBMPOLearner.ensemble must be @DynamicsEnsemble(), got 5"),
    ("mbmpo", ["MBMPOLearner.real = @ModelFit()"], "MBMPOLearner.real must be @RealData()"),
    ("mbmpo", ["ModelFit.max_epochs = 50"], "ModelFit.max_epochs must be a list of numbers of epochs, got 50"),
    ("mbmpo", ["ModelFit.max_epochs = []"], "ModelFit.max_epochs must be a list of numbers of epochs, got []"),
    ("mbmpo", ["MODEL_MAX_EPOCHS = 0"], "ModelFit.max_epochs must be at least 1, got 0"),
    ("mbmpo", ["MODEL_MAX_EPOCHS = 'many'"], "ModelFit.max_epochs must be an integer, got 'many'"),
    ("mbmpo", ["RealData.collect_with = 'stail'"], "RealData.collect_with must be one of stale, readapted, pre; got"),
    ("mbmpo", ["RealData.collect_with = 'stail'"], "did you mean 'stale'?"),
    ("mbmpo", ["RealData.store_last_transition = 1"], "RealData.store_last_transition must be True or False, got 1"),
    ("mbmpo", ["ImaginedData.reset = 'bufer'"], "did you mean 'buffer'?"),
    ("mbmpo", ["ImaginedData.horizon = 5"], "imagined rows, which cannot be shared equally among 4 tasks"),
    ("mbmpo", ["ImaginedData.clip_observation = 'no'"], "ImaginedData.clip_observation must be a number, got 'no'"),
    ("mbmpo", ["INNER_LR = -0.1"], "InnerAdaptation.inner_lr must be at least 0"),
    ("mbmpo", ["META_STEPS = 0"], "MBMPOLearner.meta_steps must be at least 1, got 0"),
    ("mbmpo", ["SEED = 1.5", "MBMPOLearner.seed = 1.5"], "MBMPOLearner.seed must be an integer, got 1.5"),
    ("mbmpo", ["MetaTRPO.hvp = 'exakt'"], "did you mean 'exact'?"),
    ("mbmpo", ["MetaTRPO.stepsize = 0.1"], "'MetaTRPO' has no parameter 'stepsize'; did you mean 'step_size'?"),
    ("mbmpo", ["RealData.colect_with = 'pre'"], "'RealData' has no parameter 'colect_with'; did you mean"),
    ("mbmpo", ["META_STEP = 3"], "nothing in this experiment uses META_STEP; did you mean 'META_STEPS'?"),
    ("mbmpo", ["NUM_MODELS = 0"], "DynamicsEnsemble.num_models must be at least 1, got 0"),
    ("metrpo", ["METRPOLearner.stopping = 'validaton'"], "did you mean 'validation'?"),
    ("metrpo", ["METRPOLearner.imagined_horizon = 0"], "METRPOLearner.imagined_horizon must be at least 1, got 0"),
    ("metrpo", ["METRPOLearner.clip_observation = -1"], "METRPOLearner.clip_observation must be at least 0"),
    ("metrpo", ["METRPOLearner.improved_share = 70"], "METRPOLearner.improved_share must be at most 1"),
    ("mbmpc", ["ROLLOUTS_PER_TASK = 2"], "RealData.rollouts_per_task must be 1 with MBMPCLearner, got 2"),
    ("mbmpc", ["NUM_CANDIDATES = 0"], "num_candidates must be at least 1, got 0"),
    ("maml", ["FAMILY = 3"], "MAMLLearner.family must be a task family such as @HalfCheetah(), got 3"),
    ("maml", ["INNER_UPDATES = 0"], "InnerAdaptation.inner_updates must be at least 1, got 0"),
    ("trpo", ["META_BATCH_SIZE = True"], "TRPOLearner.copies must be an integer, got True"),
]


@pytest.mark.parametrize(("kind", "changes", "words"), MISTAKES, ids=[f"{m[0]}, {m[1][-1]}" for m in MISTAKES])
def test_a_mistake_is_one_line_before_any_step(kind, changes, words, tmp_path, monkeypatch):
    def stepped(*_, **__):
        raise AssertionError("stepped")

    monkeypatch.setattr(Sampler, "collect", stepped)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        train(kind, "run", *changes)
    message = str(caught.value)
    assert words in message
    assert "\n" not in message
    assert len(message) < 400
    assert os.listdir(tmp_path) == []


def test_a_missing_meta_update_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("incomplete.gin").write_text(
        "import mbmpo.families\nimport mbmpo.methods\nimport metarl.experiment.experiment\n"
        "Experiment.learner = @MBMPOLearner()\nExperiment.iterations = 1\nMBMPOLearner.family = @HalfCheetah()\n"
        "MBMPOLearner.policy = @GaussianMLPPolicy()\nMBMPOLearner.ensemble = @DynamicsEnsemble()\n"
    )
    with pytest.raises(UserError, match=r"a value is required for MBMPOLearner\.meta_update") as caught:
        front_door.run(front_door.Command(["incomplete.gin"], logdir="run"))
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == ["incomplete.gin"]


def test_a_mistake_on_the_command_line_ends_with_2_and_no_traceback(tmp_path):
    arguments = [f"--gin_param={line}" for line in bindings({**MBMPO, "META_BATCH_SIZE": 5})]
    run = tmp_path / "run"
    done = launch("launchers.train", "--gin_file=configs/mbmpo_half_cheetah.gin", f"--logdir={run}", *arguments)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: meta_batch_size must be a multiple")
    assert not run.exists()
