"""From the flags of the plot launcher to files."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from absl import logging

from metarl.experiment import checks
from metarl.experiment.errors import UserError
from metarl.experiment.result_folder import require_writable
from metarl.experiment.run_directory import csv_text, safe_name, write_atomically
from metarl.reporting import figures, layouts, runs
from metarl.reporting.panels import FigurePlan

_SUFFIXES = (".png", ".pdf", ".csv")


class Request(NamedTuple):
    """A command line.

    Attributes:
        patterns: folders or globs.
        x: what to plot against.
        y: columns.
        group_by: 'method', 'family', macros or bindings.
        where: conditions 'NAME=value'.
        layout: one of `layouts.LAYOUTS`.
        statistic: one of `figures.STATISTICS`.
        points: at most so many per curve.
        output: folder of the files.
        name: of the files of a single figure; default made of x and y.
        overwrite: replace files.
    """

    patterns: tuple[str, ...]
    x: str = "env_steps"
    y: tuple[str, ...] = ("return",)
    group_by: tuple[str, ...] = ("method",)
    where: tuple[str, ...] = ()
    layout: str = "columns"
    statistic: str = "both"
    points: int = 200
    output: str = "plots"
    name: str | None = None
    overwrite: bool = False


def run(request: Request) -> int:
    """Draws and writes; returns 0.

    Raises:
        UserError: one line that names the mistake; nothing was written.
    """
    checks.choice("--layout", request.layout, layouts.LAYOUTS)
    checks.choice("--statistic", request.statistic, figures.STATISTICS)
    checks.integer("--points", request.points, minimum=2)
    if not all(request.group_by) or not request.group_by:
        raise UserError(
            "--group_by names nothing; give method, family, folder, or macros or bindings, such as INNER_LR"
        )
    if not request.patterns:
        raise UserError("which runs? Give folders or globs, such as runs/tesp_wheeled/seed_*")
    output = Path(request.output)
    require_writable(output)
    found = runs.where(runs.find(request.patterns), request.where)
    runs.check_names(found, request.group_by, "--group_by")
    plans = _plans(request, found)
    paths = [output / f"{plan.name}{suffix}" for plan in plans for suffix in _SUFFIXES]
    there = next((path for path in paths if os.path.lexists(path)), None)
    if there is not None and not request.overwrite:
        raise UserError(f"{there} exists; --overwrite replaces it, --output or --name chooses another place")
    try:
        output.mkdir(parents=True, exist_ok=True)
        for plan in plans:
            _write(plan, output, request.statistic)
    except OSError as error:
        raise UserError(f"cannot write to {output}: {error.strerror}; choose another --output") from error
    logging.info("%d runs: wrote %s (png, pdf, csv)", len(found), ", ".join(str(output / plan.name) for plan in plans))
    return 0


def _plans(request: Request, found: Sequence[runs.Run]) -> list[FigurePlan]:
    if request.layout == "tesp":
        plans = layouts.tesp(found, request.group_by, request.points)
    elif request.layout == "mbmpo":
        plans = layouts.mbmpo(found, request.group_by)
    else:
        layouts.check_columns(found, request.x, request.y)
        plans = [layouts.columns(found, request.x, request.y, request.group_by, request.points)]
    if request.name is not None:
        name = safe_name(request.name, "--name")
        for plan in plans:
            plan.name = name if len(plans) == 1 else f"{name}_{plan.name}"
    return plans


def _write(plan: FigurePlan, output: Path, statistic: str) -> None:
    """Writes a figure's files; each appears, or replaces the one before, as a whole."""
    figure = figures.draw(plan, statistic)
    for suffix, metadata in ((".png", {}), (".pdf", {"CreationDate": None})):
        path = output / f"{plan.name}{suffix}"
        temporary = path.with_name(f".{path.name}.tmp")
        figure.savefig(temporary, format=suffix[1:], metadata=metadata)
        os.replace(temporary, path)
    write_atomically(output / f"{plan.name}.csv", csv_text(plan.table()))
