"""Every gin file of the MB-MPO family: it builds, and holds what the specification's sections 0, 6 and 8 list."""

import re

import pytest
import sweep_lines
from mbmpo_rows import (
    CANONICAL,
    COMPARISON,
    CROSSINGS,
    ENVIRONMENTS,
    LABELS,
    LEARNERS,
    NAMES,
    OWN,
    ROWS,
    SEEDS,
    STUDIES,
    SWEPT,
    differences,
    method_of,
    of_kind,
)
from test_configs import CONFIGS, build, header


def test_every_config_of_the_family_is_known():
    found = set()
    for path in [*CONFIGS.glob("*.gin"), *(CONFIGS / "studies").glob("*.gin")]:
        if "configs/base/mbmpo/" in path.read_text(encoding="utf-8"):
            found.add(path.relative_to(CONFIGS).with_suffix("").as_posix())
    assert found == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_builds_as_its_name_says(name, supplement):
    learner = supplement.build(name).learner
    method = method_of(name)
    assert type(learner).__name__ == LEARNERS[method.split("_")[0]]
    if name in COMPARISON:
        assert learner.family.name == name.removeprefix(f"{method}_")


@pytest.mark.parametrize("name", NAMES)
def test_header_names_what_it_reproduces_and_the_seeds(name):
    text = header(name)
    assert text.startswith(f"{LABELS[method_of(name)]} ")
    if name in (*OWN, *CROSSINGS):
        assert "no row of any paper" in text
        assert not sweep_lines.seeds(CONFIGS / f"{name}.gin")
        return
    assert re.search(r"\bpaper\b.*; MB-MPO specification, section 8|nothing to reproduce|O-21", text)
    expected = SEEDS[method_of(name)] if name in COMPARISON else STUDIES[name.removeprefix("studies/")][0]
    assert sweep_lines.seeds(CONFIGS / f"{name}.gin") == expected


@pytest.mark.parametrize("name", COMPARISON)
def test_the_six_environments_have_their_method_s_values(name, supplement):
    assert not differences(supplement.build(name), CANONICAL[method_of(name)])


def test_steps_of_the_comparison(supplement):
    for environment in ENVIRONMENTS:
        for method in ("mbmpo", "metrpo", "mbmpc"):
            assert supplement.build(f"{method}_{environment}").learner.steps_per_round == 4000
        trpo = supplement.build(f"trpo_{environment}").learner
        assert trpo.num_tasks * trpo.rollouts_per_task * trpo.horizon == 50_000


@pytest.mark.parametrize("name", STUDIES)
def test_rows_differ_from_their_method_only_as_listed(name, supplement):
    method = method_of(name)
    expected = of_kind({**CANONICAL[method], **ROWS[name]})
    assert not differences(supplement.build(f"studies/{name}"), expected)


@pytest.mark.parametrize("name", STUDIES)
def test_sweep_lines_say_the_row_s_grid(name):
    """One value of one line at a time; models small where they have a size to choose."""
    path = CONFIGS / f"studies/{name}.gin"
    sweeps = sweep_lines.of_file(path)
    assert tuple(len(sweep.values) for sweep in sweeps) == STUDIES[name][1]
    assert len(sweeps) == len(SWEPT.get(name, ()))
    for sweep, (settings, values) in zip(sweeps, SWEPT.get(name, ()), strict=True):
        for index, value in enumerate(values):
            experiment = build(f"studies/{name}", *sweep.bindings(index))
            paths = settings.split()
            expected = value if len(paths) > 1 else (value,)
            assert not differences(experiment, dict(zip(paths, expected, strict=True)))


def test_only_headers_of_studies_have_sweep_lines():
    for path in CONFIGS.rglob("*.gin"):
        text = path.read_text(encoding="utf-8")
        if path.parent.name != "studies":
            assert "# sweep" not in text
        assert "# sweep" not in text.partition("\n\n")[2]


@pytest.mark.parametrize("line", ["INNER_LR = [1]", "INNER_LR=1", "(A, B)=[(1, 2), (3,)]", "(A)=[1]", "=[1]"])
def test_what_is_no_sweep_line(line):
    with pytest.raises(ValueError, match=r"sweep line|every value"):
        sweep_lines.parse(line)


def test_values_of_sweep_lines_may_be_references():
    sweep = sweep_lines.parse("FAMILY=[@Hopper(), @Swimmer()]")
    assert [sweep.bindings(i)[0].split(".")[-1] for i in range(2)] in (
        ["Hopper()", "Swimmer()"],
        ["FAMILY = @Hopper()", "FAMILY = @Swimmer()"],
    )


def test_metrpo_s_imagined_steps(supplement):
    """50,000 steps asked for of 100 rows of 200 steps are three whole sweeps."""
    assert supplement.build("metrpo_half_cheetah").learner.imagination.capacity == 60_000
    assert supplement.build("studies/metrpo_bad_models").learner.imagination.capacity == 100_000
    small = build("metrpo_half_cheetah", "IMAGINED_ROLLOUTS_PER_TASK = 3", "META_BATCH_SIZE = 4", "HORIZON = 10")
    assert (small.learner.imagination.rows_per_task, small.learner.imagination.capacity) == (3 * 4, 3 * 4 * 10)


@pytest.mark.parametrize(("name", "limit"), [("walker2d", 2.0), ("hopper", 2.0), ("half_cheetah", 0.1)])
def test_random_parameters(name, limit, supplement):
    family = supplement.build(f"studies/maml_trpo_rand_param_{name}").learner.family
    assert (family.name, family.scaling._parameters.log_scale_limit) == (name, limit)
    assert family.task_dim == {"walker2d": 65, "hopper": 41, "half_cheetah": 68}[name]


def test_points_of_the_plasticity_study(supplement):
    learned, fake = (supplement.build(f"studies/mbmpo_plasticity_{name}").learner for name in ("point", "point_fake"))
    assert [tuple(x) for x in (learned.family.start_low, learned.family.start_high)] == [(-2, -2), (2, 2)]
    assert tuple(learned.family.goal) == (0, 0)
    assert [tuple(x) for x in (fake.family.start_low, fake.family.start_high)] == [(2, 2), (6, 6)]
    assert tuple(fake.family.goal) == tuple(fake.ensemble.goal) == (4, 4)


def test_crossings_have_their_method_s_values_and_a_goal(supplement):
    for name in CROSSINGS:
        assert not differences(supplement.build(name), CANONICAL[method_of(name)])
        assert supplement.build(name).learner.family.name == "reacher_2link_fixed_goal"
    first = supplement.build("maml_reacher_2link").learner.goal_sets.train[0]
    assert tuple(supplement.build(CROSSINGS[0]).learner.family.goal) == tuple(first)
    assert tuple(build(CROSSINGS[0], "GOAL = (0.5, -0.25)").learner.family.goal) == (0.5, -0.25)
    assert tuple(build(CROSSINGS[0], "GOAL_SEED = 2").learner.family.goal) != tuple(first)
