"""Macros and profiles of the MB-MPO family: what they reach, and what is refused."""

import pytest
from mbmpo_rows import CANONICAL, CROSSINGS, NAMES, OWN, ROWS, differences, method_of, of_kind
from test_configs import build

from metarl.experiment import gin_front_door
from metarl.experiment.errors import UserError

SCALED = {
    "mbmpo": {
        "ITERATIONS": ("iterations", 3), "SEED": ("seed", 4), "META_BATCH_SIZE": ("num_tasks", 6),
        "ROLLOUTS_PER_TASK": ("real.rollouts_per_task", 7), "HORIZON": ("real.horizon", 8),
        "NUM_MODELS": ("ensemble.num_models", 3), "INITIAL_RANDOM_STEPS": ("real.initial_random_steps", 90),
        "IMAGINED_ROLLOUTS_PER_TASK": ("imagined.rollouts_per_task", 5), "META_STEPS": ("meta_steps", 2),
        "MODEL_MAX_EPOCHS": ("fit.max_epochs", 4), "INNER_UPDATES": ("adaptation.inner_updates", 2),
        "POLICY_HIDDEN_SIZES": ("policy.hidden_sizes", (9,)), "MODEL_HIDDEN_SIZES": ("ensemble.hidden_sizes", (10,)),
    },
    "metrpo": {
        "ITERATIONS": ("iterations", 3), "SEED": ("seed", 4), "META_BATCH_SIZE": ("num_tasks", 6),
        "ROLLOUTS_PER_TASK": ("real.rollouts_per_task", 7), "HORIZON": ("real.horizon", 8),
        "NUM_MODELS": ("ensemble.num_models", 3), "INITIAL_RANDOM_STEPS": ("real.initial_random_steps", 90),
        "IMAGINED_STEPS": ("imagination.capacity", 96), "META_STEPS": ("update_steps", 2),
        "MODEL_MAX_EPOCHS": ("fit.max_epochs", 4),
        "POLICY_HIDDEN_SIZES": ("policy.hidden_sizes", (9,)), "MODEL_HIDDEN_SIZES": ("ensemble.hidden_sizes", (10,)),
    },
    "mbmpc": {
        "ITERATIONS": ("iterations", 3), "SEED": ("seed", 4), "META_BATCH_SIZE": ("num_tasks", 6),
        "ROLLOUTS_PER_TASK": ("real.rollouts_per_task", 1), "HORIZON": ("real.horizon", 8),
        "NUM_MODELS": ("ensemble.num_models", 3), "INITIAL_RANDOM_STEPS": ("real.initial_random_steps", 90),
        "MODEL_MAX_EPOCHS": ("fit.max_epochs", 4), "PLANNING_HORIZON": ("planner.horizon", 3),
        "NUM_CANDIDATES": ("planner.num_candidates", 5), "MODEL_HIDDEN_SIZES": ("ensemble.hidden_sizes", (10,)),
    },
    "trpo": {
        "ITERATIONS": ("iterations", 3), "SEED": ("seed", 4), "META_BATCH_SIZE": ("num_tasks", 6),
        "ROLLOUTS_PER_TASK": ("rollouts_per_task", 7), "HORIZON": ("horizon", 8),
        "POLICY_HIDDEN_SIZES": ("policy.hidden_sizes", (9,)),
    },
}  # fmt: skip


@pytest.mark.parametrize("method", SCALED)
def test_macros_scale_a_run(method):
    bindings = [
        f"{name} = {list(value) if isinstance(value, tuple) else value}" for name, (_, value) in SCALED[method].items()
    ]
    experiment = build(f"{method}_half_cheetah", *bindings)
    expected = dict(SCALED[method].values())
    if "fit.max_epochs" in expected:
        expected["fit.max_epochs"] = (4,)
    assert not differences(experiment, expected)


# design.md's common ones, and those that issue 3 adds for methods with models.
COMMON = ("ITERATIONS", "SEED", "META_BATCH_SIZE", "ROLLOUTS_PER_TASK", "HORIZON")
OF_MODELS = ("INITIAL_RANDOM_STEPS", "MODEL_MAX_EPOCHS", "NUM_MODELS")
IMAGINED = ("IMAGINED_ROLLOUTS_PER_TASK", "META_STEPS")
MACROS = {
    "mbmpo": (*COMMON, *OF_MODELS, *IMAGINED),
    "metrpo": (*COMMON, *OF_MODELS, *IMAGINED),
    "mbmpc": (*COMMON, *OF_MODELS),
    "trpo": COMMON,
    "maml": (*COMMON, "INNER_UPDATES"),
}


@pytest.mark.parametrize("name", NAMES)
def test_every_file_has_the_macros_of_its_method(name):
    parsed, missing = gin_front_door.parse([f"configs/{name}.gin"]), object()
    for macro in MACROS[method_of(name).split("_")[0]]:
        assert parsed.macro(macro, missing) is not missing, macro


@pytest.mark.parametrize(
    ("name", "binding"),
    [
        ("trpo_half_cheetah", "NUM_MODELS = 5"),
        ("metrpo_half_cheetah", "MetaTRPO.hvp = 'exact'"),
        ("mbmpc_half_cheetah", "POLICY_HIDDEN_SIZES = [4]"),
        ("mbmpo_half_cheetah", "Hopper.timestep = 0.002"),
        ("mbmpc_half_cheetah", "IMAGINED_ROLLOUTS_PER_TASK = 2"),
        ("mbmpo_half_cheetah", "LOG_REAL_PERFORMANCE = False"),
    ],
)
def test_what_a_method_has_not_is_refused(name, binding):
    with pytest.raises(UserError, match="nothing in this experiment uses"):
        build(name, binding)


@pytest.mark.parametrize(
    ("name", "binding", "words"),
    [
        (
            "metrpo_half_cheetah",
            "RealData.collect_with = 'pre'",
            "RealData.collect_with = 'pre' has no effect with METRPOL",
        ),
        ("mbmpc_half_cheetah", "RealData.collect_with = 'pre'", "has no effect with MBMPCLearner; leave it at 'stale'"),
        (
            "mbmpc_half_cheetah",
            "RealData.reset_policy_std = True",
            "RealData.reset_policy_std = True has no effect with",
        ),
        ("mbmpc_half_cheetah", "RealData.num_threads = 2", "RealData.num_threads = 2 has no effect with MBMPCLearner"),
        (
            "studies/metrpo_bad_models",
            "INITIAL_RANDOM_STEPS = 40",
            "RealData.initial_random_steps = 40 has no effect with METRPOLearner.first_data 'policy'; leave it at None",
        ),
    ],
)
def test_a_setting_without_effect_is_refused(name, binding, words):
    with pytest.raises(UserError) as error:
        build(name, binding)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def profiled(name, profile, *params):
    files = [f"configs/{name}.gin", f"configs/profiles/{profile}.gin"]
    return gin_front_door.build(gin_front_door.parse(files, params))


CLEAN = {
    "mbmpo": {
        "real.collect_with": "readapted", "real.store_last_transition": True, "real.exact_random_steps": True,
        "ensemble.reshuffle_batch_order": True, "meta_update.hvp": "exact",
        "imagined.rows_from": "imagined_horizon", "imagined.inherit_time": False,
    },
    "metrpo": {
        "real.store_last_transition": True, "real.exact_random_steps": True, "ensemble.reshuffle_batch_order": True,
    },
    "mbmpc": {
        "real.store_last_transition": True, "real.exact_random_steps": True, "ensemble.reshuffle_batch_order": True,
    },
    "trpo": {},
    "maml_trpo": {"meta_update.hvp": "exact"},
    "maml_ppo": {},
    "maml_vpg": {},
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_profiles_go_with_every_config(name):
    """The newest commit's changes nothing, except where a row is about what it sets; the others what they are for."""
    method = method_of(name)
    row = ROWS.get(name.removeprefix("studies/"), {})
    expected = of_kind({**CANONICAL[method], **row}) if name not in (*OWN, *CROSSINGS) else {}
    head = profiled(name, "repo_head")
    assert not differences(head, expected)
    submission = profiled(name, "submission").learner
    if method == "mbmpo":
        assert submission.real.buffer_capacity == (None if "bad_models" in name else 300_000)
        assert submission.log_real_performance == (name != "studies/mbmpo_long_horizon")
        assert submission.ensemble.persistency == (0.95 if "bad_models" in name else 0.99)
    if method == "trpo" and not name.startswith("studies/"):
        assert (head.iterations, profiled(name, "submission").iterations) == (1000, 2000)
        assert profiled(name, "submission", "ITERATIONS = 7").iterations == 7
    if submission.family.name in ("hopper", "walker2d"):
        assert (submission.family.timestep, submission.family.frame_skip) == (0.002, 4)
        assert (head.learner.family.timestep, head.learner.family.frame_skip) == (0.004, 5)
    clean = profiled(name, "clean")
    expected = {**expected, **CLEAN[method]}
    if "meta_update.hvp" in expected and type(clean.learner.meta_update).__name__ in ("MetaPPO", "MetaVPG"):
        expected.pop("meta_update.hvp")
    if "point_fake" in name:
        expected.pop("ensemble.reshuffle_batch_order")
    assert not differences(clean, expected)
    if hasattr(clean.learner.family, "clip_action_in_model_reward"):
        assert clean.learner.family.clip_action_in_model_reward
        assert not head.learner.family.clip_action_in_model_reward
    if clean.learner.family.name == "pr2_reach":
        assert clean.learner.family.scale_action_in_model_reward


def test_an_unknown_binding_is_a_mistake_beside_a_profile_too():
    with pytest.raises(UserError, match="nothing in this experiment uses Reacher"):
        profiled("mbmpo_half_cheetah", "clean", "import mbmpo.families", "mbmpo.Reacher.random_parameters = None")
    with pytest.raises(UserError, match=r"optional\.parts must be a list"):
        build("mbmpo_half_cheetah", "optional.parts = 3")


def test_a_later_binding_wins_over_a_profile():
    experiment = profiled("mbmpo_half_cheetah", "clean", "MetaTRPO.hvp = 'fd'", "COLLECT_WITH = 'pre'")
    assert not differences(experiment, {"meta_update.hvp": "fd", "real.collect_with": "pre"})
