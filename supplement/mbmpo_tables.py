"""The tables of settings.md for the MB-MPO family, read from what building its gin files consumes."""

import functools
import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import gin

import mbmpo.families
from mbmpo.environments import FAMILY_OF_ID, HORIZON_OF_ID
from metarl.experiment import gin_bindings, gin_front_door
from metarl.simulation.imaginable import ImaginableFamily

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
COMPARED = ("mbmpo", "metrpo", "mbmpc", "trpo")
ENVIRONMENTS = ("half_cheetah", "ant", "walker2d", "swimmer", "hopper", "pr2_reach")
PROFILES = ("repo_head", "submission", "clean")
# What the other experiments of a method are compared with.
_REFERENCE = {method: f"{method}_half_cheetah" for method in COMPARED}
_REFERENCE["maml"] = "studies/maml_trpo_half_cheetah_direction"
# Not settings but what they are made of, or what a user chooses.
_UNTOLD = ("Experiment.learner", "Experiment.figure_every", "Experiment.keep_checkpoints", "runtime.", "optional.")
_PARTS = (
    ".num_threads",
    ".policy",
    ".ensemble",
    ".adaptation",
    ".real",
    ".fit",
    ".imagined",
    ".processing",
    ".update",
    ".seed",
)

Table = Callable[[Sequence[str], Iterable[Sequence[str]]], str]


def sections(table: Table) -> tuple[tuple[str, str], ...]:
    """Returns (title, text) of every section."""
    return (
        ("MB-MPO: environments", environment_table(table)),
        ("MB-MPO: the comparison", comparison_table(table)),
        ("MB-MPO: studies, crossings and first looks", study_table(table)),
        ("MB-MPO: profiles", profile_table(table)),
    )


def config_names() -> list[str]:
    """Returns every experiment of the MB-MPO family: 'mbmpo_ant', 'studies/...'."""
    paths = [*sorted(CONFIGS.glob("*.gin")), *sorted((CONFIGS / "studies").glob("*.gin"))]
    mine = [path for path in paths if "include 'configs/base/mbmpo/" in path.read_text(encoding="utf-8")]
    return [path.relative_to(CONFIGS).with_suffix("").as_posix() for path in mine]


def method_of(name: str) -> str:
    """Returns the first word of a config's name, which is its method: 'mbmpo', 'maml', ..."""
    return name.removeprefix("studies/").split("_")[0]


@functools.cache
def settings(name: str, profile: str | None = None) -> dict[str, str]:
    """Returns every parameter that building 'configs/<name>.gin' consumed, by its binding, macros resolved."""
    files = [f"configs/{name}.gin", *([f"configs/profiles/{profile}.gin"] if profile else [])]
    gin_front_door.build(gin_front_door.parse(files))
    operative = gin_bindings.without_macros(gin_bindings.read(gin.operative_config_str()))
    found = {key.owner: _short(value) for key, value in operative.items() if not _untold(key.owner)}
    gin.clear_config()
    # What a method can do nothing with, and refuses to have set.
    unused = {"mbmpo": (), "metrpo": ("collect_with",)}.get(method_of(name), ("collect_with", "reset_policy_std"))
    for setting in unused:
        found.pop(f"RealData.{setting}", None)
    if "TRPO.step_size" in found:  # what it inherits without an effect
        found = {key: value for key, value in found.items() if not key.startswith("MetaTRPO.")}
    return found


def environment_table(table: Table) -> str:
    """One row per family: spaces, timing, ends, and whether it can be imagined."""
    rows = []
    for env_id, family_name in FAMILY_OF_ID.items():
        family = getattr(mbmpo.families, family_name)()
        model = getattr(family, "model", None)
        rows.append(
            [
                f"`{env_id}`", f"`{family_name}`", f"{family.observation_dim}, {family.action_dim}",
                "-" if model is None else f"{model.opt.timestep:g} × {family.frame_skip}",
                "-" if model is None else f"{family.control_period:g}", str(HORIZON_OF_ID[env_id]),
                "yes" if family.ends_early else "no", "yes" if isinstance(family, ImaginableFamily) else "no",
                str(family.task_dim),
            ]
        )  # fmt: skip
    header = (
        "Gymnasium id", "gin name", "O, A", "physics step (s) × steps", "control step (s)", "time limit of the id",
        "ends early", "batch reward", "numbers of a task",
    )  # fmt: skip
    return table(header, rows) + (
        "\nWithout a batch reward a family cannot be imagined: MAML on real tasks and TRPO train on it. "
        "`random_parameters` turns a\nMuJoCo family with no task numbers into one whose tasks are multipliers of "
        "masses, inertias, dampings and frictions.\n"
    )


def comparison_table(table: Table) -> str:
    """One column per method, which its six environments must agree on.

    Raises:
        ValueError: two environments differ in more than the environment.
    """
    columns = {method: _agreed([f"{method}_{environment}" for environment in ENVIRONMENTS]) for method in COMPARED}
    names = sorted({name for column in columns.values() for name in column})
    rows = [[f"`{name}`", *(column.get(name, "-") for column in columns.values())] for name in names]
    return table(("setting", *(f"`{method}_*`" for method in COMPARED)), rows) + (
        f"\nThe same on {', '.join(ENVIRONMENTS)}. Seeds: "
        + "; ".join(f"{method} {_headline(_REFERENCE[method], 'seeds')}" for method in COMPARED)
        + ".\n"
    )


def study_table(table: Table) -> str:
    """One row per other experiment: what differs from its method's values, and the grid of its header."""
    compared = {f"{method}_{environment}" for method in COMPARED for environment in ENVIRONMENTS}
    rows = []
    for name in config_names():
        if name in compared:
            continue
        reference = _REFERENCE[method_of(name)]
        mine, theirs = settings(name), settings(reference)
        changed = [f"`{key}` {value}" for key, value in mine.items() if theirs.get(key, _default(key)) != value]
        rows.append(
            [
                f"`{name}`",
                ", ".join(changed) or ("see below" if name == reference else "nothing"),
                ", ".join(f"`{line}`" for line in _headlines(name, "sweep")) or "-",
                _headline(name, "seeds") or "-",
            ]
        )
    reference = ", ".join(f"`{key}` {value}" for key, value in settings(_REFERENCE["maml"]).items())
    return table(("config", "other than its method on half-cheetah", "sweep", "seeds"), rows) + (
        f"\nMAML's are compared with `{_REFERENCE['maml']}`: {reference}.\n"
    )


def profile_table(table: Table) -> str:
    """What the profiles change, taken together over the comparison's MB-MPO configs."""
    found: dict[str, dict[str, str]] = {}
    for profile in PROFILES:
        for environment in ENVIRONMENTS:
            for name, value in settings(f"mbmpo_{environment}", profile).items():
                found.setdefault(name, {})[profile] = value
    rows = [
        [f"`{name}`", *(values[profile] for profile in PROFILES)]
        for name, values in sorted(found.items())
        if len({values[profile] for profile in PROFILES}) > 1
    ]
    return table(("setting", *PROFILES), rows) + (
        "\nOverlays in `configs/profiles/`; every config is `repo_head` by itself.\n"
    )


def _agreed(names: Sequence[str]) -> dict[str, str]:
    families = set(FAMILY_OF_ID.values())
    agreed: dict[str, str] = {}
    for name in names:
        mine = {key: value for key, value in settings(name).items() if key.split(".")[0] not in families}
        mine = {key: value for key, value in mine.items() if not key.endswith(".family")}
        if agreed and mine != agreed:
            raise ValueError(f"{name} differs from {names[0]} in {sorted(set(mine.items()) ^ set(agreed.items()))}")
        agreed = mine
    return agreed


def _default(owner: str) -> str | None:
    """Returns a parameter's default as it is shown; None if it has none, or its owner's name is not unique."""
    name, _, parameter = owner.rpartition(".")
    found = gin_bindings.matches(name)
    if len(found) != 1:
        return None
    signature = inspect.signature(gin.config._REGISTRY[found[0]].wrapped)
    return _short(repr(signature.parameters[parameter].default))


def _untold(owner: str) -> bool:
    return owner.startswith(_UNTOLD) or owner.endswith(_PARTS)


def _short(value: str) -> str:
    return re.sub(r"@(?:\w+\.)*(\w+)\(\)", r"\1", value).strip("'")


def _headlines(name: str, kind: str) -> list[str]:
    text = (CONFIGS / f"{name}.gin").read_text(encoding="utf-8")
    return re.findall(rf"^# {kind}: (.+)$", text, re.M)


def _headline(name: str, kind: str) -> str:
    return "".join(_headlines(name, kind))
