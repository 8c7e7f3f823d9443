"""One tiny run per distinct code path of the MB-MPO family, from the gin file to the final table, in this process."""

import csv
import math

import pytest
from mbmpo_rows import NAMES, method_of

from metarl.experiment import front_door

SMALL = ("ITERATIONS = 2", "META_BATCH_SIZE = 4", "ROLLOUTS_PER_TASK = 1", "HORIZON = 8")
POLICY = ("POLICY_HIDDEN_SIZES = [4]",)
MODELS = ("NUM_MODELS = 2", "MODEL_MAX_EPOCHS = 2", "INITIAL_RANDOM_STEPS = 40", "MODEL_HIDDEN_SIZES = [6]")
TINY = {
    "mbmpo": (*SMALL, *POLICY, *MODELS, "IMAGINED_ROLLOUTS_PER_TASK = 2", "META_STEPS = 2"),
    "metrpo": (*SMALL, *POLICY, *MODELS, "IMAGINED_STEPS = 50", "META_STEPS = 2"),
    "mbmpc": (*SMALL, *MODELS, "PLANNING_HORIZON = 3", "NUM_CANDIDATES = 5"),
    "trpo": (*SMALL, *POLICY),
    "maml": (*SMALL, *POLICY),
}

PATHS = {
    "MB-MPO with TRPO": ("mbmpo_half_cheetah", ()),
    "MB-MPO with PPO": ("studies/mbmpo_ppo_walker2d", ("MetaPPO.num_batches = 3", "MetaPPO.multi_adam = True")),
    "MB-MPO with VPG, trainable rates, first order": (
        "studies/mbmpo_vpg_half_cheetah",
        ("InnerAdaptation.trainable_inner_lr = True", "InnerAdaptation.first_order = True"),
    ),
    "without MAML, no evaluation": (
        "mbmpo_pr2_reach",
        ("MetaTRPO.use_maml = False", "MBMPOLearner.log_real_performance = False"),
    ),
    "two inner updates, exact product, readapted": (
        "mbmpo_point_laptop",
        (
            "INNER_UPDATES = 2", "MetaTRPO.hvp = 'exact'", "COLLECT_WITH = 'readapted'",
            "RealData.exact_random_steps = True",
        ),
    ),
    "pre, kept terminal transitions": (
        "mbmpo_hopper",
        ("COLLECT_WITH = 'pre'", "RealData.store_last_transition = True", "MetaTRPO.constraint = 'pre_update'"),
    ),
    "long horizon": ("studies/mbmpo_long_horizon", ("IMAGINED_HORIZON = 4",)),
    "falling reward, fresh models": (
        "mbmpo_ant",
        (
            "MBMPOLearner.stop_when_reward_decreases = True", "ModelFit.reinit_cycle = 1", "BUFFER_CAPACITY = 50",
            "MetaTRPO.hvp = 'fd'",
        ),
    ),
    "bad models": ("studies/mbmpo_bad_models", ()),
    "fake point models": ("studies/mbmpo_plasticity_point_fake", ()),
    "ME-TRPO, falling reward": ("metrpo_walker2d", ("METRPOLearner.stopping = 'reward'",)),
    "ME-TRPO, validation": ("studies/metrpo_kurutach_half_cheetah", ("METRPOLearner.check_every = 1",)),
    "ME-TRPO, bad models, own data first": (
        "studies/metrpo_bad_models",
        ("INITIAL_RANDOM_STEPS = None", "IMAGINED_ROLLOUTS_PER_TASK = 2"),
    ),
    "MB-MPC": ("mbmpc_half_cheetah", ()),
    "MB-MPC, cross-entropy method": (
        "mbmpc_hopper",
        ("PLANNER = @CrossEntropyMethod()", "CrossEntropyMethod.num_candidates = 6", "CrossEntropyMethod.horizon = 2"),
    ),
    "MAML with TRPO": ("maml_trpo_point_navigation", ()),
    "MAML with PPO, two inner updates": ("studies/maml_ppo_code_comparison", ()),
    "MAML with VPG": ("studies/maml_vpg_half_cheetah_direction", ()),
    "MAML with PPO as VPG": ("studies/maml_ppo_as_vpg_swimmer_velocity", ()),
    "MAML, random parameters, early ends": ("studies/maml_trpo_rand_param_hopper", ()),
    "TRPO, random parameters": ("studies/trpo_rand_param_half_cheetah", ()),
    "crossing": ("mbmpo_tesp_reacher_2link", ()),
    "crossing of ME-TRPO": ("metrpo_tesp_reacher_2link", ()),
    "crossing of MB-MPC": ("mbmpc_tesp_reacher_2link", ()),
}  # fmt: skip


def tiny(name):
    return TINY[method_of(name).split("_")[0]]


def run(name, params, logdir, profile=()):
    """Trains; returns the rows of progress.csv and final.csv."""
    assert (
        front_door.run(front_door.Command([f"configs/{name}.gin", *profile], params, seed=3, logdir=str(logdir))) == 0
    )
    tables = []
    for file_name in ("progress.csv", "final.csv"):
        with (logdir / file_name).open(newline="") as file:
            tables.append(list(csv.DictReader(file)))
    return tables


def check(progress, final, iterations):
    assert len(progress) == iterations
    for row in progress:
        assert all(math.isfinite(float(value)) for value in row.values() if value)
        assert float(row["time/iteration"]) > 0
        assert any(row.get(f"{prefix}/return") for prefix in ("real", "pre_update"))
    totals = [int(row["env_steps/total"]) for row in progress]
    assert totals == sorted(totals)
    assert totals[0] > 0
    policies = [row["policy"] for row in final]
    assert policies[0] == "random actions"
    assert policies[-1] in ("trained", "planned")
    assert all(math.isfinite(float(row["return"])) for row in final)


@pytest.mark.parametrize("path", PATHS)
def test_one_tiny_run_per_code_path(path, tmp_path):
    name, params = PATHS[path]
    check(*run(name, (*tiny(name), *params), tmp_path / "run"), iterations=2)


def test_the_clean_profile_trains(tmp_path):
    """On the long horizon: rollouts from the buffer that start at time 0, rows of the imagined horizon."""
    name = "studies/mbmpo_long_horizon"
    params = (*tiny(name), "IMAGINED_HORIZON = 4")
    check(*run(name, params, tmp_path / "run", ("configs/profiles/clean.gin",)), iterations=2)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_config_runs(name, tmp_path):
    """With the networks as configured; only what scales the run is small."""
    params = [item for item in tiny(name) if not item.startswith(("MODEL_HIDDEN", "POLICY_HIDDEN", "NUM_MODELS"))]
    params += ["META_BATCH_SIZE = 5", *(["IMAGINED_HORIZON = 4"] if "long_horizon" in name else [])]
    check(*run(name, (*params, "ITERATIONS = 1"), tmp_path / "run"), iterations=1)
