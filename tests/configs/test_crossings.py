"""Experiments that run one port's method on the other port's families, by gin import only."""

import csv
import json
import math

import pytest

from metarl.experiment import evaluation, front_door, gin_front_door
from metarl.experiment.errors import UserError
from metarl.experiment.learner import EvaluationRequest

CONFIG = "configs/tesp_mbmpo_half_cheetah_direction.gin"
TINY = (
    "META_BATCH_SIZE = 2", "ROLLOUTS_PER_TASK = 2", "HORIZON = 5", "INNER_UPDATES = 1", "HIDDEN_SIZES = [4, 4]",
    "TespLearner.num_goals = 3", "Validation.frequency = 1", "MetaUpdate.num_evaluations = 3",
    "FinalTable.num_goals = 2", "EMBEDDING_DIM = 3", "GRU_UNITS = 5",
)  # fmt: skip
FAMILIES = {
    "direction": ("HalfCheetahDirection", 1, ()),
    "direction, early ends": ("AntDirection", 1, ()),
    "goal": ("AntGoal", 2, ()),
    "velocity": ("SwimmerVelocity", 1, ()),
    "navigation": ("PointNavigation", 2, ()),
    "physical parameters": (
        "Hopper",
        4,
        (
            "Hopper.random_parameters = @RandomParameters()",
            "RandomParameters.log_scale_limit = 1.0",
            "RandomParameters.rand_params = ('dof_damping',)",
        ),
    ),
}


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def on(family, *params):
    return (*TINY, f"TespLearner.family = @{family}()", *params)


def test_the_config_builds_at_full_size():
    experiment = gin_front_door.build(gin_front_door.parse([CONFIG]))
    assert experiment.learner.family.name == "half_cheetah_direction"
    assert [tasks.shape for tasks in experiment.learner.goal_sets] == [(100, 1)] * 3
    assert len({float(task) for tasks in experiment.learner.goal_sets for task in tasks[:, 0]}) == 300


def test_tesp_trains_resumes_and_is_evaluated_on_the_other_port_s_families(tmp_path):
    run = tmp_path / "run"
    assert front_door.run(front_door.Command([CONFIG], (*TINY, "ITERATIONS = 1"), seed=3, logdir=str(run))) == 0
    assert front_door.run(front_door.Command([CONFIG], (*TINY, "ITERATIONS = 2"), seed=3, logdir=str(run))) == 0
    assert (
        front_door.run(
            front_door.Command([CONFIG], (*TINY, "ITERATIONS = 2"), seed=3, logdir=str(tmp_path / "straight"))
        )
        == 0
    )
    progress, straight = rows(run / "progress.csv"), rows(tmp_path / "straight" / "progress.csv")
    assert len(progress) == 2
    for name, value in progress[1].items():
        assert name.startswith("time/") or value == straight[1][name], name
    assert {"reward_run/fast_update_1", "validation_test_2/reward_run_1", "ends/terminated"} <= progress[1].keys()
    assert not {name for name in progress[1] if "arrived" in name or "dist_reward" in name}
    assert all(math.isfinite(float(value)) for value in progress[1].values())

    request = EvaluationRequest(task_sets=("test_1",), tasks=((0.5,), (1.5,)), num_tasks=2)
    assert evaluation.run(str(run), "latest", request, output=str(tmp_path / "result")) == 0
    per_task = rows(tmp_path / "result" / "per_task.csv")
    assert [float(row["task_0"]) for row in per_task[2:]] == [0.5, 1.5]
    assert not {name for name in per_task[0] if name.startswith(("goal_x", "success"))}
    assert {row["success"] for row in rows(tmp_path / "result" / "pooled.csv")} == {""}
    assert json.loads((tmp_path / "result" / "evaluation.json").read_text())["family"] == "half_cheetah_direction"


@pytest.mark.parametrize("kind", FAMILIES)
def test_families_of_every_kind_train(kind, tmp_path):
    family, dim, params = FAMILIES[kind]
    quick = ("ITERATIONS = 1", "TespLearner.method = @MAML()", "MAML.hidden_sizes = (4, 4)")
    config = tmp_path / "crossing.gin"
    config.write_text("include 'configs/base/fast_adaptation.gin'\nimport tesp.methods\nimport mbmpo.families\n")
    params = [item for item in on(family, *params) if not item.startswith(("HIDDEN", "EMBEDDING", "GRU"))]
    assert (
        front_door.run(front_door.Command([str(config)], (*params, *quick), seed=3, logdir=str(tmp_path / "run"))) == 0
    )
    final = rows(tmp_path / "run" / "final.csv")
    assert [row["paper"] for row in final] == ["D", "D'", "D''"]
    assert all(math.isfinite(float(row["do_nothing"])) for row in final)
    request = EvaluationRequest(task_sets=("train",), num_tasks=1)
    assert evaluation.run(str(tmp_path / "run"), "latest", request, output=str(tmp_path / "result")) == 0
    columns = rows(tmp_path / "result" / "per_task.csv")[0]
    assert sum(name.startswith("task_") for name in columns) >= dim


@pytest.mark.parametrize(
    ("params", "words"),
    [
        (on("HalfCheetah"), "half_cheetah has a single task, described by no number"),
        (on("Point2D"), "point_2d has a single task"),
        ((*TINY, "TespLearner.family = @TESP()"), "must be a task family"),
    ],
)
def test_families_without_tasks_are_refused_by_name(params, words, tmp_path):
    with pytest.raises(UserError, match=words) as caught:
        front_door.run(front_door.Command([CONFIG], params, logdir=str(tmp_path / "run")))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()
