"""Copies the curves of finished or stopped runs into supplement/results: CSV, plot, commit, versions, wall-clock.

python supplement/collect_results.py --name=wheeled --run=TESP:runs/tesp_wheeled/seed_1 --run=MAML:runs/maml
"""

import csv
import json
import pathlib

from absl import app, flags, logging
from matplotlib.figure import Figure

_NAME = flags.DEFINE_string("name", None, "Name of the result: the files' common beginning.", required=True)
_RUNS = flags.DEFINE_multi_string("run", None, "label:folder of a run; repeatable.", required=True)
_OUTPUT = flags.DEFINE_string("output", str(pathlib.Path(__file__).parent / "results"), "Where the files go.")

SETS = {"train": "D", "test_1": "D'", "test_2": "D''"}
RANDOM_POLICY, DO_NOTHING = -227.0, -155.7  # wheeled, D: TESP specification, section 5.9


def read_rows(run: pathlib.Path) -> list[dict[str, str]]:
    """The rows of a run's progress.csv."""
    with open(run / "progress.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def column(rows: list[dict[str, str]], name: str) -> tuple[list[int], list[float]]:
    """Meta-updates and values where the column was measured."""
    pairs = [(int(row["iteration"]), float(row[name])) for row in rows if row.get(name)]
    return [x for x, _ in pairs], [y for _, y in pairs]


def last_round(rows: list[dict[str, str]]) -> int:
    """K, the number of fast-updates."""
    return max(int(name.rpartition("_")[2]) for name in rows[0] if name.startswith("return/fast_update_"))


def figure_of(runs: dict[str, list[dict[str, str]]]) -> Figure:
    """Return before and after adaptation on the meta-batches, and on the goal sets, against meta-updates."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    training, validation = figure.subplots(1, 2, sharey=True)
    for colour, (label, rows) in zip(("tab:blue", "tab:orange", "tab:green", "tab:red"), runs.items(), strict=False):
        last = last_round(rows)
        training.plot(*column(rows, f"return/fast_update_{last}"), color=colour, label=f"{label}, {last} fast-updates")
        training.plot(*column(rows, "return/fast_update_0"), color=colour, alpha=0.4, label=f"{label}, none")
        for style, (name, paper) in zip(("-", "--", ":"), SETS.items(), strict=True):
            x, y = column(rows, f"validation_{name}/return_{last}")
            if x:
                validation.plot(x, y, style, marker="o", color=colour, label=f"{label}, {paper}")
    for axes, title in ((training, "meta-batches (training goals)"), (validation, "goal sets, after adaptation")):
        axes.axhline(DO_NOTHING, color="0.6", linewidth=0.8, label="doing nothing, D")
        axes.axhline(RANDOM_POLICY, color="0.6", linewidth=0.8, linestyle="--", label="N(0, 1) actions, D")
        axes.set_title(title)
        axes.set_xlabel("meta-updates")
        axes.legend(fontsize=7)
    training.set_ylabel("average return")
    return figure


def main(argv: list[str]) -> None:
    """Writes the CSV of every run, one JSON and one PNG."""
    del argv
    output = pathlib.Path(_OUTPUT.value)
    output.mkdir(parents=True, exist_ok=True)
    runs, facts = {}, {}
    for item in _RUNS.value:
        label, _, folder = item.partition(":")
        rows = runs[label] = read_rows(pathlib.Path(folder))
        with open(output / f"{_NAME.value}_{label.lower()}.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        versions = json.loads((pathlib.Path(folder) / "versions.json").read_text(encoding="utf-8"))
        sessions = versions.get("sessions", [versions])
        seconds = sum(float(row["time/meta_update"]) + float(row["time/validation"]) for row in rows)
        facts[label] = {"meta_updates": len(rows), "wall_clock_hours": round(seconds / 3600, 2), "sessions": sessions}
    (output / f"{_NAME.value}.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    figure_of(runs).savefig(output / f"{_NAME.value}.png", dpi=130)
    logging.info("wrote %s", output / f"{_NAME.value}.*")


if __name__ == "__main__":
    app.run(main)
