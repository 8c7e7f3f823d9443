"""Writes supplement/settings.md: the settings of every environment and experiment, read from gin files and code.

python supplement/generate.py            writes the file
python supplement/generate.py --check    fails if the file is out of date, writes nothing

Every number comes from the objects that a gin file builds, through the same front door as a training run, so that the
document cannot say what a run does not do.
"""

import argparse
import functools
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from metarl.experiment import gin_front_door
from metarl.experiment.experiment import Experiment
from metarl.experiment.runtime import import_tensorflow
from tesp.families import Ant, Point
from tesp.families.ant import HEALTHY_Z
from tesp.families.goal_family import FRAME_SKIP, GoalFamily, MujocoGoalFamily
from tesp.families.point import OBSERVATION_LIMIT, STEP_SIZE

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "supplement"))  # a folder of scripts is no package
import mbmpo_tables  # noqa: E402

SETTINGS = ROOT / "supplement" / "settings.md"
METHODS = ("maml", "metasgd", "maesn", "tesp", "tesp_adapt_policy")
ENVIRONMENTS = ("wheeled", "ant", "reacher_2link", "reacher_4link", "point")
NOISE_STUDY = tuple(f"studies/tesp_ant_noise_{sigma}" for sigma in ("0", "0_01", "0_05", "0_1"))
LAPTOP = "tesp_wheeled_laptop"

HEADER = """# Settings

Generated from the gin files and the code by `python supplement/generate.py`; do not edit. What the settings mean and
why they are as they are stands in the [supplement's README](README.md).
"""


def config_names() -> list[str]:
    """Returns every experiment of the TESP family, in the document's order: 'tesp_wheeled', 'studies/...'."""
    return [f"{method}_{env}" for env in ENVIRONMENTS for method in METHODS] + [LAPTOP, *NOISE_STUDY]


@functools.cache
def build(name: str) -> Experiment:
    """Returns the experiment of 'configs/<name>.gin', built and checked by the gin front door; nothing is stepped."""
    return gin_front_door.build(gin_front_door.parse([f"configs/{name}.gin"]))


def family_of(environment: str) -> GoalFamily:
    """Returns the task family as the configs of an environment make it."""
    return build(f"maml_{environment}").learner.family


def settings_document() -> str:
    """Returns the text of settings.md."""
    sections = (
        ("Environments", environment_table()),
        ("Bodies", body_table()),
        ("Goal sets", goal_table()),
        ("Experiments: what differs", experiment_table(config_names())),
        ("Experiments: what is shared", shared_table()),
        ("Transition noise on ant", noise_table()),
        *mbmpo_tables.sections(table),
    )
    return HEADER + "".join(f"\n## {title}\n\n{text}" for title, text in sections)


def environment_table() -> str:
    """One column per environment: spaces, timing, ends and costs."""
    columns = [_environment_settings(family_of(environment)) for environment in ENVIRONMENTS]
    rows = [[name, *(column[name] for column in columns)] for name in columns[0]]
    return table(("", *ENVIRONMENTS), rows) + (
        "\nThe reward of a step is -‖p - goal‖₂ - coefficient · scale · Σ clip(a, -1, 1)², with p as in "
        "the table.\nAn action is held for one control step. Observations do not contain the goal.\n"
    )


def _environment_settings(family: GoalFamily) -> dict[str, str]:
    settings = {"observation width O": str(family.observation_dim), "action width A": str(family.action_dim)}
    ant = isinstance(family, Ant)
    if isinstance(family, MujocoGoalFamily):
        model = family.model
        limits = ", ".join(f"±{limit:g}" for limit in sorted(set(model.actuator_ctrlrange[:, 1])))
        settings |= {
            "action ±1 means": f"servo target {limits}",
            "integrator": mujoco.mjtIntegrator(model.opt.integrator).name.removeprefix("mjINT_"),
            "physics step (s)": number(model.opt.timestep),
            "physics steps per control step": str(FRAME_SKIP),
            "p of the reward": f"origin of `{family.body}`",
            "`fresh_kinematics`": str(family.fresh_kinematics),
        }
    else:
        settings |= {
            "action ±1 means": f"±{STEP_SIZE} m per axis",
            "integrator": "-",
            "physics step (s)": "-",
            "physics steps per control step": "-",
            "p of the reward": f"the point, observed within ±{number(OBSERVATION_LIMIT)}",
            "`fresh_kinematics`": "-",
        }
    threshold = number(family.arrival_threshold)
    low, high = HEALTHY_Z
    return settings | {
        "`arrival_threshold` (m)": f"{threshold} per axis" if isinstance(family, Point) else threshold,
        "also ends when": f"torso height is outside [{low}, {high}] m, or the state is not finite" if ant else "-",
        "`ctrl_cost_coeff`": number(family.ctrl_cost_coeff),
        "`ctrl_cost_scale`": number(family.ctrl_cost_scale),
        "`unhealthy_penalty`": number(family.unhealthy_penalty) if ant else "-",
    }


def body_table() -> str:
    """Masses of the models' bodies; equal ones share a row."""
    rows = []
    for family in map(family_of, ENVIRONMENTS):
        if not isinstance(family, MujocoGoalFamily):
            continue
        model = family.model
        names_of: dict[str, list[str]] = {}
        for body in range(1, model.nbody):
            names_of.setdefault(f"{model.body_mass[body]:.6f}", []).append(model.body(body).name)
        rows.append([family.name, f"{model.nq}, {model.nv}, {model.nu}", f"{model.body_mass.sum():.6f}", "in all"])
        rows += [["", "", mass, _named(names)] for mass, names in names_of.items()]
    return table(("environment", "nq, nv, nu", "mass (kg)", "bodies"), rows)


def _named(bodies: Sequence[str]) -> str:
    names = [f"`{body}`" for body in bodies if body]
    unnamed = len(bodies) - len(names)
    return ", ".join(names + ([f"{unnamed} without a name"] if unnamed else []))


def goal_table() -> str:
    """Where the goals lie, and what the default goal seed draws."""
    header = (
        "environment", "goal seed", "goals per set", "radius of D and D' (m)", "radius of D'' (m)",
        "least distance (m)",
        "mean radius D, D', D'' (m)", "first goal of D",
    )  # fmt: skip
    rows = []
    for environment in ENVIRONMENTS:
        seed = gin_front_door.parse([f"configs/maml_{environment}.gin"]).macro("GOAL_SEED")
        goals, places = build(f"maml_{environment}").learner.goal_sets, family_of(environment).goal_parameters
        radii = ", ".join(f"{np.mean(np.linalg.norm(set_, axis=1)):.3f}" for set_ in goals)
        rows.append(
            [
                environment, str(seed), str(len(goals.train)),
                f"({places.inner_radius}, {places.near_radius})", f"({places.near_radius}, {places.far_radius})",
                number(places.min_distance), radii, f"({goals.train[0, 0]:.6f}, {goals.train[0, 1]:.6f})",
            ]
        )  # fmt: skip
    return table(header, rows) + (
        "\nD: the training goals; D': novel goals of the same region; D'': novel goals farther out. Proposals are "
        "uniform in a square\naround the origin; D' also keeps its distance to D.\n"
    )


def experiment_table(names: Iterable[str]) -> str:
    """One row per config: networks, rates, regulariser, cost of a meta-update and parameter counts."""
    header = (
        "config", "method", "policy MLP", "GRU", "d", "eta", "fast-update rate", "inner θ", "shared φ", "rates α",
        "steps per meta-update", "meta-updates",
    )  # fmt: skip
    rows = []
    for name in names:
        experiment = build(name)
        learner = experiment.learner
        method = learner.method
        rows.append(
            [
                f"`{name}`", method.name, "×".join(map(str, method.hidden_sizes)),
                str(method.gru_units) if method.uses_encoder else "-",
                str(method.context_dim) if method.context_dim else "-",
                number(method.embedding_coeff) if method.context_dim else "-", fast_update_rate(method),
                *(f"{count:,}" for count in parameter_counts(learner)), f"{steps_per_meta_update(learner):,}",
                str(experiment.iterations),
            ]
        )  # fmt: skip
    return table(header, rows) + (
        "\nd is the width of the latent vector or task embedding, eta the coefficient of its mean square in the outer "
        "loss. Steps per\nmeta-update are those of complete episodes of full length; early ends replace long episodes "
        "by more, shorter ones, of together\nat least as many steps.\n"
    )


def fast_update_rate(method: Any) -> str:
    """Returns the rate of a fast-update in words: constant, or learned from where and within what."""
    if not method.adaptive_inner_lr:
        return f"{number(method.inner_lr)}, constant"
    bound = "unbounded" if method.inner_lr_bound is None else f"within ±{number(method.inner_lr_bound)}"
    return f"from {number(method.inner_lr)}, learned, {bound}"


def parameter_counts(learner: Any) -> list[int]:
    """Returns the numbers of scalars in theta (inner), phi (shared) and alpha (rates)."""
    return [
        sum(int(np.prod(value.shape)) for value in group.values())
        for group in (learner.parameters.inner, learner.parameters.shared, learner.parameters.rates)
    ]


def steps_per_meta_update(learner: Any) -> int:
    """Returns M tasks · rounds · R · H, without early ends."""
    settings = learner.adaptation
    rounds = settings.inner_updates + 1 + (learner.method.uses_encoder and settings.warmup)
    return learner.meta_batch_size * rounds * settings.rollouts_per_task * settings.horizon


def _loop_settings(experiment: Experiment) -> dict[str, Any]:
    """The settings of an experiment that do not depend on its method, under the names of their bindings."""
    learner = experiment.learner
    parts = {
        "FastAdaptation": (
            learner.adaptation,
            ("rollouts_per_task", "horizon", "inner_updates", "inner_grad_clip", "gamma", "lambda_"),
        ),
        "MetaUpdate": (
            learner.meta_update,
            (
                "outer_lr", "num_evaluations", "clip_param", "kl_limit", "replay_inner", "second_order",
                "rollback_adam",
            ),
        ),
        "Validation": (learner.validation, ("frequency", "num_goals", "goal_sets")),
        "FinalTable": (learner.final, ("num_goals", "rollouts_per_task", "goal_sets")),
        "Experiment": (experiment, ("checkpoint_every", "keep_checkpoints", "figure_every")),
    }  # fmt: skip
    values = {"TespLearner.meta_batch_size": learner.meta_batch_size, "TespLearner.seed": learner.seed}
    values |= {f"{part}.{name}": getattr(owner, name) for part, (owner, names) in parts.items() for name in names}
    if learner.method.uses_encoder:
        names = ("episode_mode", "buffer_size", "encoder_episode_capacity", "warmup")
        values |= {f"FastAdaptation.{name}": getattr(learner.adaptation, name) for name in names}
        values["encoder_action_feature"] = learner.method.encoder_action_feature
    return values


def shared_table() -> str:
    """The loop's settings by scale: experiments of one scale must agree, or the document would have to list them."""
    names = config_names()
    scales = {
        "paper": [name for name in names if name != LAPTOP and not name.endswith("_point")],
        "laptop": [LAPTOP],
        "point": [name for name in names if name.endswith("_point")],
    }
    columns = {
        scale: _agreed({name: _loop_settings(build(name)) for name in members}) for scale, members in scales.items()
    }
    rows = [
        [f"`{setting}`", *(_shown(column.get(setting)) for column in columns.values())] for setting in columns["paper"]
    ]
    return table(("setting", *(f"{scale} scale" for scale in scales)), rows) + (
        "\nBuffer, warm-up and encoder settings apply to the two TESP methods. In a validation or final table, None "
        "stands for all goals\nof a set, or as many copies as in training.\n"
    )


def _agreed(settings_of: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Returns what the experiments of a scale have in common.

    Raises:
        ValueError: two of them differ in a setting; names both.
    """
    agreed: dict[str, tuple[str, Any]] = {}
    for name, settings in settings_of.items():
        for setting, value in settings.items():
            first, other = agreed.setdefault(setting, (name, value))
            if other != value:
                raise ValueError(f"{setting} is {other!r} in {first} and {value!r} in {name}")
    return {setting: value for setting, (_, value) in agreed.items()}


def noise_table() -> str:
    """One row per noise level: what validation adds to which set."""
    rows = []
    for name in NOISE_STUDY:
        validation = build(name).learner.validation
        noise = [validation.noise_for(goal_set) for goal_set in ("train", "test_1", "test_2")]
        rows.append(
            [f"`{name}`", *("none" if one is None else f"{number(one.sigma)} on the {one.kind}" for one in noise)]
        )
    return (
        table(("config", "D", "D'", "D''"), rows)
        + "\nStandard deviation per component and step. Training is the same in all four.\n"
    )


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def number(value: float) -> str:
    """Returns a number as short as it can be said."""
    return f"{value:g}"


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return number(value)
    if isinstance(value, (tuple, list)):
        return ", ".join(map(str, value))
    return str(value)


def main() -> int:
    """Writes or checks the document; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="fail if the file is out of date; write nothing")
    arguments = parser.parse_args()
    import_tensorflow()
    text = settings_document()
    if not arguments.check:
        SETTINGS.write_text(text, encoding="utf-8")
        return 0
    if SETTINGS.is_file() and SETTINGS.read_text(encoding="utf-8") == text:
        return 0
    sys.stderr.write(f"{SETTINGS.relative_to(ROOT)} is out of date: run python supplement/generate.py\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
