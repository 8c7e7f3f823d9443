"""Every gin file: it builds without an unused binding, and holds what its header says and the specification lists."""

import re
from pathlib import Path

import pytest

from metarl.experiment import gin_front_door
from metarl.experiment.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"
LABELS = {
    "maml": "MAML",
    "metasgd": "Meta-SGD",
    "maesn": "MAESN",
    "tesp_adapt_policy": "TESP with adaptive policy",
    "tesp": "TESP",
}
# TESP specification, section 7, Table 1: widths of the MLP, d, eta of MAESN (AdaptSV), eta of TESP.
TABLE_1 = {
    "wheeled": ((256, 256), 8, 0.01, 0.01),
    "ant": ((512, 512), 32, 0.01, 0.01),
    "reacher_2link": ((256, 256), 8, 0.001, 0.005),
    "reacher_4link": ((512, 512), 16, 0.005, 0.005),
}
# Section 1: encoder, policy of TESP and MAESN, policy of MAML and Meta-SGD.
PARAMETER_COUNTS = {
    "wheeled": (210_184, 71_428, 69_380),
    "ant": (240_928, 302_608, 286_224),
    "reacher_2link": (209_416, 71_172, 69_124),
    "reacher_4link": (219_152, 282_632, 274_440),
}
EXPERIMENTS = {f"{method}_{environment}" for method in LABELS for environment in (*TABLE_1, "point")}
EXPERIMENTS |= {"tesp_wheeled_laptop"} | {f"studies/tesp_ant_noise_{sigma}" for sigma in ("0", "0_01", "0_05", "0_1")}
NAMES = sorted(EXPERIMENTS)  # of the TESP family; MB-MPO's and the crossings have tests of their own
TABLE_CONFIGS = [(method, environment) for environment in TABLE_1 for method in LABELS]


def header(name):
    """The comment that a config opens with, as one line."""
    lines = (CONFIGS / f"{name}.gin").read_text(encoding="utf-8").split("\n\n", 1)[0].splitlines()
    assert all(line.startswith("# ") for line in lines)
    return " ".join(line.removeprefix("# ") for line in lines)


def build(name, *params):
    return gin_front_door.build(gin_front_door.parse([f"configs/{name}.gin"], params))


def parts(name):
    """The method and the environment that a file's name tells."""
    stem = name.removeprefix("studies/")
    method = next(method for method in LABELS if stem.startswith(f"{method}_"))
    return method, stem.removeprefix(f"{method}_")


@pytest.mark.parametrize("name", NAMES)
def test_builds_without_an_unused_binding(name, supplement):
    experiment = supplement.build(name)
    environment = parts(name)[1]
    assert environment.startswith(experiment.learner.family.name)
    assert experiment.learner.method.name == LABELS[parts(name)[0]].replace("-", "").replace(
        " with adaptive policy", "AdaptivePolicy"
    )


@pytest.mark.parametrize("name", NAMES)
def test_header_names_what_it_reproduces(name):
    method, environment = parts(name)
    family = next(known for known in (*TABLE_1, "point") if environment.startswith(known))
    assert header(name).startswith(f"{LABELS[method]} on {family}")
    if name.startswith("studies/"):
        assert "supplement, Figure 1" in header(name)
    elif family == "point":
        assert "no row of the supplement" in header(name)
    else:
        assert re.search(f"supplement, Table 1, (TESP's values of )?row {family}[:,]", header(name))
    assert len((CONFIGS / f"{name}.gin").read_text().splitlines()[0]) <= 120


@pytest.mark.parametrize(("method", "environment"), TABLE_CONFIGS)
def test_header_says_the_values(method, environment):
    widths, width, maesn_eta, tesp_eta = TABLE_1[environment]
    text = header(f"{method}_{environment}")
    assert f"MLP [{widths[0]}, {widths[1]}]" in text
    assert ("GRU 256" in text) == method.startswith("tesp")
    if method in ("maml", "metasgd"):
        assert "d = " not in text
    else:
        assert f"d = {width}, eta = {maesn_eta if method == 'maesn' else tesp_eta}." in text


def test_every_experiment_is_there_and_in_the_supplement(supplement):
    assert set(NAMES) == set(supplement.config_names())
    for name in NAMES:
        assert (CONFIGS / f"{name}.gin").is_file()


def test_every_base_file_is_included_and_configs_include_nothing_else():
    included = set()
    for path in CONFIGS.rglob("*.gin"):
        found = re.findall(r"^include '(.+)'$", path.read_text(), re.M)
        included.update(found)
        assert (
            path.parent == CONFIGS / "studies"
            or path.stem == "tesp_wheeled_laptop"
            or all(name.startswith("configs/base/") for name in found)
        )
    base = {path.relative_to(ROOT).as_posix() for path in (CONFIGS / "base").rglob("*.gin")}
    assert base == {name for name in included if name.startswith("configs/base/")}


@pytest.mark.parametrize(("method", "environment"), TABLE_CONFIGS)
def test_table_1(method, environment, supplement):
    widths, width, maesn_eta, tesp_eta = TABLE_1[environment]
    learned = supplement.build(f"{method}_{environment}").learner.method
    assert learned.hidden_sizes == widths
    assert learned.adaptive_inner_lr == (method != "maml")
    assert learned.inner_lr == 1e-3
    if method in ("maml", "metasgd"):
        assert (learned.context_dim, learned.embedding_coeff) == (0, 0.0)
    else:
        assert learned.context_dim == width
        assert learned.embedding_coeff == (maesn_eta if method == "maesn" else tesp_eta)
    if method != "maml":
        assert learned.inner_lr_bound == 0.1
    if method.startswith("tesp"):
        assert (learned.gru_units, learned.encoder_action_feature) == (256, "logits")


@pytest.mark.parametrize(("method", "environment"), TABLE_CONFIGS)
def test_parameter_counts(method, environment, supplement):
    encoder, with_context, plain = PARAMETER_COUNTS[environment]
    width = TABLE_1[environment][1]
    expected = {
        "maml": [plain, 0, 0],
        "metasgd": [plain, 0, plain],
        "maesn": [width, with_context, width],
        "tesp": [encoder, with_context, encoder],
        "tesp_adapt_policy": [encoder + with_context, 0, encoder + with_context],
    }
    assert supplement.parameter_counts(supplement.build(f"{method}_{environment}").learner) == expected[method]


@pytest.mark.parametrize(("method", "environment"), TABLE_CONFIGS)
def test_the_training_scripts_values(method, environment, supplement):
    """Specification, sections 4, 5.1 and 7, and the defaults that section 9 recommends."""
    experiment = supplement.build(f"{method}_{environment}")
    learner = experiment.learner
    adaptation, outer, family = learner.adaptation, learner.meta_update, learner.family
    assert (experiment.iterations, learner.seed, learner.meta_batch_size) == (600, 1, 20)
    assert [len(goals) for goals in learner.goal_sets] == [100, 100, 100]
    assert (adaptation.rollouts_per_task, adaptation.horizon, adaptation.inner_updates) == (25, 200, 3)
    assert (adaptation.gamma, adaptation.lambda_, adaptation.inner_grad_clip) == (0.99, 0.97, 60.0)
    assert (adaptation.episode_mode, adaptation.buffer_size, adaptation.warmup) == ("episode_buffer", 16, True)
    assert (outer.outer_lr, outer.num_evaluations, outer.clip_param, outer.kl_limit) == (3e-4, 20, 0.15, 0.01)
    assert (outer.replay_inner, outer.second_order, outer.rollback_adam) == (False, False, False)
    assert (learner.validation.frequency, learner.validation.num_goals) == (25, None)
    assert (family.ctrl_cost_coeff, family.ctrl_cost_scale, family.fresh_kinematics) == (1e-3, 0.5, False)
    assert getattr(family, "unhealthy_penalty", 0.0) == 0.0
    assert supplement.steps_per_meta_update(learner) == (500_000 if method.startswith("tesp") else 400_000)


@pytest.mark.parametrize(("suffix", "sigma"), [("0", 0.0), ("0_01", 0.01), ("0_05", 0.05), ("0_1", 0.1)])
def test_noise_study_differs_from_tesp_ant_in_validation_only(suffix, sigma, supplement):
    noisy, plain = (supplement.build(name).learner for name in (f"studies/tesp_ant_noise_{suffix}", "tesp_ant"))
    for part in ("adaptation", "meta_update"):
        assert vars(getattr(noisy, part)) == vars(getattr(plain, part))
    assert noisy.validation.noise_for("train") is None
    for goal_set in ("test_1", "test_2"):
        noise = noisy.validation.noise_for(goal_set)
        assert (0.0 if noise is None else noise.sigma) == sigma
        assert noise is None or noise.kind == "observation"
        assert plain.validation.noise_for(goal_set) is None


def test_noise_study_on_the_state_is_one_binding():
    learner = build("studies/tesp_ant_noise_0_05", "Validation.noise_kind = 'state'", "HIDDEN_SIZES = [4]").learner
    assert learner.validation.noise_for("test_2").kind == "state"


@pytest.mark.parametrize("method", LABELS)
def test_macros_scale_a_run(method):
    experiment = build(
        f"{method}_point", "ITERATIONS = 3", "SEED = 4", "GOAL_SEED = 5", "META_BATCH_SIZE = 6",
        "ROLLOUTS_PER_TASK = 7", "HORIZON = 8", "INNER_UPDATES = 2", "HIDDEN_SIZES = [9]",
    )  # fmt: skip
    learner = experiment.learner
    adaptation = learner.adaptation
    assert (experiment.iterations, learner.seed, learner.meta_batch_size) == (3, 4, 6)
    assert (adaptation.rollouts_per_task, adaptation.horizon, adaptation.inner_updates) == (7, 8, 2)
    assert learner.method.hidden_sizes == (9,)
    other_goals = build(f"{method}_point", "GOAL_SEED = 6", "HIDDEN_SIZES = [9]").learner.goal_sets.train
    assert (learner.goal_sets.train != other_goals).any()


@pytest.mark.parametrize("binding", ["EMBEDDING_DIM = 8", "GRU_UNITS = 8", "TESP.embedding_dim = 8"])
def test_what_a_method_has_not_is_refused(binding):
    with pytest.raises(UserError, match="nothing in this experiment uses"):
        build("maml_point", binding)
