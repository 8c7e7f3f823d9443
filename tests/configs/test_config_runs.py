"""One tiny run per distinct code path, from the gin file to the final table, all in this process."""

import csv
import math

import pytest
from test_configs import NAMES

from metarl.experiment import front_door

TINY = ("ITERATIONS = 1", "META_BATCH_SIZE = 2", "ROLLOUTS_PER_TASK = 2", "HORIZON = 5", "INNER_UPDATES = 2")
VALIDATED = ("TespLearner.num_goals = 3", "Validation.frequency = 1", "Validation.num_goals = 3")
SHORT = ("MetaUpdate.num_evaluations = 3", "FinalTable.num_goals = 2", "Experiment.figure_every = 1")
SMALL_NETWORK = ("HIDDEN_SIZES = [4, 4]",)
SMALL = (*SMALL_NETWORK, "EMBEDDING_DIM = 3", "GRU_UNITS = 5")

PATHS = {
    "maml": ("maml_point", SMALL_NETWORK),
    "metasgd": ("metasgd_point", SMALL_NETWORK),
    "maesn": ("maesn_point", (*SMALL_NETWORK, "EMBEDDING_DIM = 3")),
    "tesp": ("tesp_point", SMALL),
    "adaptive policy": ("tesp_adapt_policy_point", SMALL),
    "replay": (
        "tesp_point",
        (*SMALL, "MetaUpdate.replay_inner = True", "MetaUpdate.rollback_adam = True"),
    ),
    "second order": ("tesp_point", (*SMALL, "MetaUpdate.second_order = True", "FastAdaptation.warmup = False")),
    "second-order MAML": ("maml_point", (*SMALL_NETWORK, "MetaUpdate.second_order = True")),
    "last episodes, action": (
        "tesp_point",
        (*SMALL, "FastAdaptation.episode_mode = 'last_episodes'", "TESP.encoder_action_feature = 'action'"),
    ),
    "all episodes": ("tesp_point", (*SMALL, "FastAdaptation.episode_mode = 'all_episodes'")),
    "noise on the observation": ("studies/tesp_ant_noise_0_1", SMALL),
    "noise on the state": ("studies/tesp_ant_noise_0_1", (*SMALL, "Validation.noise_kind = 'state'")),
    "wheeled": ("maml_wheeled", SMALL_NETWORK),
    "reacher_2link": ("maml_reacher_2link", (*SMALL_NETWORK, "Reacher2Link.fresh_kinematics = True")),
    "reacher_4link": ("maml_reacher_4link", (*SMALL_NETWORK, "Reacher4Link.ctrl_cost_scale = 1.0")),
    "unhealthy penalty": ("maml_ant", (*SMALL_NETWORK, "tesp.Ant.unhealthy_penalty = 1.0")),
}


def run(name, params, logdir):
    """Trains for one meta-update; returns the rows of progress.csv and final.csv."""
    assert front_door.run(front_door.Command([f"configs/{name}.gin"], params, seed=3, logdir=str(logdir))) == 0
    tables = []
    for file_name in ("progress.csv", "final.csv"):
        with (logdir / file_name).open(newline="") as file:
            tables.append(list(csv.DictReader(file)))
    return tables


def check(progress, final, fast_updates):
    assert len(progress) == 1
    assert all(math.isfinite(float(value)) for value in progress[0].values() if value)
    assert all(progress[0][f"return/fast_update_{k}"] for k in range(fast_updates + 1))
    assert [row["paper"] for row in final] == ["D", "D'", "D''"]
    for row in final:
        for column in ("do_nothing", "untrained_post", f"fast_update_{fast_updates}"):
            assert math.isfinite(float(row[column]))


@pytest.mark.parametrize("path", PATHS)
def test_one_tiny_run_per_code_path(path, tmp_path):
    name, params = PATHS[path]
    progress, final = run(name, (*TINY, *VALIDATED, *SHORT, *params), tmp_path / "run")
    check(progress, final, fast_updates=2)
    validated = [float(progress[0][f"validation_{which}/return_2"]) for which in ("train", "test_1", "test_2")]
    assert all(map(math.isfinite, validated))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_config_runs(name, tmp_path):
    """With the networks as configured; only what scales the run is small."""
    progress, final = run(name, (*TINY, "FinalTable.num_goals = 2"), tmp_path / "run")
    check(progress, final, fast_updates=2)
