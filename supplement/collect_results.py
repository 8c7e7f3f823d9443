"""Copies the curves of finished or stopped runs into supplement/results: CSV, plot, commit, versions, wall-clock.

python supplement/collect_results.py --name=wheeled --run=TESP:runs/tesp_wheeled/seed_1 --run=MAML:runs/maml \
    --line="doing nothing, D:-155.7" --line="N(0, 1) actions, D:-227"

Runs of the TESP family are drawn against meta-updates, those of the MB-MPO family against real steps as the original
counts them.
"""

import csv
import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from absl import app, flags, logging
from matplotlib.figure import Figure

Rows = Sequence[Mapping[str, str]]

SETS = {"train": "D", "test_1": "D'", "test_2": "D''"}
COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown")
# Real returns of the MB-MPO family: column, words, transparency. A method has some of them.
REAL_RETURNS = (
    ("post_update/return", "after adaptation", 1.0),
    ("pre_update/return", "before adaptation", 0.6),
    ("real/return", "while collecting data", 0.3),
)


def read_rows(run: pathlib.Path) -> list[dict[str, str]]:
    """The rows of a run's progress.csv."""
    with open(run / "progress.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def column(rows: Rows, name: str, against: str = "iteration") -> tuple[list[float], list[float]]:
    """The values of two columns where both were measured."""
    pairs = [(float(row[against]), float(row[name])) for row in rows if row.get(name) and row.get(against)]
    return [x for x, _ in pairs], [y for _, y in pairs]


def last_round(rows: Rows) -> int | None:
    """K, the number of fast-updates, of a run of the TESP family; None for others."""
    rounds = [re.fullmatch(r"return/fast_update_(\d+)", name) for name in rows[0]]
    return max((int(found[1]) for found in rounds if found), default=None)


def training_curves(label: str, rows: Rows) -> list[tuple[list[float], list[float], str, float]]:
    """Curves of the returns that training itself sees: x, y, label, opacity."""
    last = last_round(rows)
    if last is not None:
        return [
            (*column(rows, f"return/fast_update_{last}"), f"{label}, {last} fast-updates", 1.0),
            (*column(rows, "return/fast_update_0"), f"{label}, none", 0.4),
        ]
    x = horizontal_axis(rows)
    curves = [(*column(rows, name, x), f"{label}, {words}", opacity) for name, words, opacity in REAL_RETURNS]
    return [curve for curve in curves if curve[0]]


def horizontal_axis(rows: Rows) -> str:
    """The column that curves are drawn against."""
    return "env_steps/counted" if "env_steps/counted" in rows[0] else "iteration"


def figure_of(runs: Mapping[str, Rows], lines: Mapping[str, float]) -> Figure:
    """Returns during training and, where goal sets were validated, on them."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    validated = any(name.startswith("validation_") for rows in runs.values() for name in rows[0])
    panels = figure.subplots(1, 2 if validated else 1, sharey=True, squeeze=False)[0]
    for index, (label, rows) in enumerate(runs.items()):
        colour = COLOURS[index % len(COLOURS)]
        for x, y, words, opacity in training_curves(label, rows):
            panels[0].plot(x, y, color=colour, alpha=opacity, label=words)
        last = last_round(rows)
        for style, (name, paper) in zip(("-", "--", ":"), SETS.items(), strict=True):
            x, y = column(rows, f"validation_{name}/return_{last}")
            if x:
                panels[1].plot(x, y, style, marker="o", color=colour, label=f"{label}, {paper}")
    axis_names = {"iteration": "meta-updates", "env_steps/counted": "real steps, as the original counts them"}
    panels[0].set_title("training")
    panels[0].set_xlabel(" / ".join(dict.fromkeys(axis_names[horizontal_axis(rows)] for rows in runs.values())))
    panels[0].set_ylabel("average return")
    if validated:
        panels[1].set_title("goal sets, after adaptation")
        panels[1].set_xlabel("meta-updates")
    for axes in panels:
        for style, (label, value) in zip(("-", "--", ":", "-.") * len(lines), lines.items(), strict=False):
            axes.axhline(value, color="0.6", linewidth=0.8, linestyle=style, label=label)
        axes.legend(fontsize=7)
    return figure


def facts_of(run: pathlib.Path, rows: Rows) -> dict[str, Any]:
    """Meta-updates, environment steps, hours, and the commits and versions that trained a run."""
    versions = json.loads((run / "versions.json").read_text(encoding="utf-8"))
    whole = ("time/iteration",) if "time/iteration" in rows[0] else ("time/meta_update", "time/validation")
    seconds = sum(float(row[name]) for row in rows for name in whole)
    facts = {"meta_updates": len(rows), "wall_clock_hours": round(seconds / 3600, 2)}
    for name in ("total", "counted"):
        if rows[-1].get(f"env_steps/{name}"):
            facts[f"env_steps_{name}"] = int(float(rows[-1][f"env_steps/{name}"]))
    return facts | {"sessions": versions.get("sessions", [versions])}


def collect(name: str, runs: Mapping[str, pathlib.Path], lines: Mapping[str, float], output: pathlib.Path) -> None:
    """Writes the CSV of every run, one JSON and one PNG.

    Args:
        name: the files' common beginning.
        runs: folders of runs by label.
        lines: returns to compare with, by label.
        output: where the files go; made if it is not there.
    """
    rows_of = {label: read_rows(folder) for label, folder in runs.items()}
    facts = {label: facts_of(folder, rows_of[label]) for label, folder in runs.items()}
    output.mkdir(parents=True, exist_ok=True)
    for label, rows in rows_of.items():
        with open(output / f"{name}_{_slug(label)}.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    (output / f"{name}.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    figure_of(rows_of, lines).savefig(output / f"{name}.png", dpi=130)


def _slug(label: str) -> str:
    return re.sub(r"\W+", "_", label.lower()).strip("_")


def define_flags() -> None:
    """Defines this command's flags; not at import, so that another program can use the functions."""
    flags.DEFINE_string("name", None, "Name of the result: the files' common beginning.", required=True)
    flags.DEFINE_multi_string("run", None, "label:folder of a run; repeatable.", required=True)
    flags.DEFINE_multi_string("line", [], "label:return, a level to compare with; repeatable.")
    flags.DEFINE_string("output", str(pathlib.Path(__file__).parent / "results"), "Where the files go.")


def main(argv: list[str]) -> None:
    """Collects the runs that the flags name."""
    del argv
    asked = flags.FLAGS
    runs = {label: pathlib.Path(folder) for label, _, folder in (item.partition(":") for item in asked.run)}
    lines = {label: float(value) for label, _, value in (item.rpartition(":") for item in asked.line)}
    collect(asked.name, runs, lines, pathlib.Path(asked.output))
    logging.info("wrote %s", pathlib.Path(asked.output) / f"{asked.name}.*")


if __name__ == "__main__":
    define_flags()
    app.run(main)
