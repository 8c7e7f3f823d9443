"""The benchmark's result: one row per measurement, printed as an aligned table, written as CSV or JSON."""

import csv
import json
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from metarl.experiment.errors import UserError

if TYPE_CHECKING:
    from benchmarks.machine import FlopReport

SUFFIXES = (".csv", ".json")


class Row(NamedTuple):
    """One measurement beside its yardstick of the same run.

    Attributes:
        what: the work.
        measured: how fast, how long or how much, in `unit`.
        unit: of `measured` and `yardstick`.
        yardstick: what it is compared with; None for a yardstick itself.
        ratio: what the requirement is about: a share of the yardstick's rate, a speed-up, or a multiple of a budget.
        at_least: smallest ratio required; None for none.
        at_most: largest ratio allowed; None for none.
        note: what else a reader needs to judge it.
    """

    what: str
    measured: float
    unit: str
    yardstick: float | None = None
    ratio: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    note: str = ""

    @property
    def required(self) -> str:
        """The requirement on `ratio` as text, empty for none."""
        if self.at_least is not None:
            return f">= {self.at_least:g}"
        return "" if self.at_most is None else f"<= {self.at_most:g}"

    @property
    def ok(self) -> str:
        """Whether the requirement is met: "yes", "NO", or empty without one."""
        if self.ratio is None or not self.required:
            return ""
        met = self.at_least is None or self.ratio >= self.at_least
        met = met and (self.at_most is None or self.ratio <= self.at_most)
        return "yes" if met else "NO"


def flop_row(what: str, found: "FlopReport", at_least: float | None) -> Row:
    """Floating-point work against the matrix product; the requirement is on the paired ratio."""
    return Row(
        what,
        found.rate,
        "GFLOP/s",
        found.matmul_rate,
        found.paired_ratio,
        at_least=at_least,
        note=f"{found.seconds:.3g} s; best against best {found.ratio:.2f}",
    )


def judge(rows: Sequence[Row], judged: bool) -> list[Row]:
    """The rows, without requirements if the sizes are not theirs."""
    return list(rows) if judged else [row._replace(at_least=None, at_most=None) for row in rows]


_COLUMNS = ("what", "measured", "unit", "yardstick", "ratio", "required", "ok", "note")


def table(rows: Sequence[Row]) -> str:
    """The rows as lines of aligned columns, numbers to the right."""
    cells = [_COLUMNS, *(tuple(_text(getattr(row, name)) for name in _COLUMNS) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(_COLUMNS))]
    right = {"measured", "yardstick", "ratio"}
    lines = []
    for row in cells:
        aligned = [
            cell.rjust(width) if name in right else cell.ljust(width)
            for name, cell, width in zip(_COLUMNS, row, widths, strict=True)
        ]
        lines.append("  ".join(aligned).rstrip())
    return "\n".join(lines) + "\n"


def check_output(path: str) -> pathlib.Path:
    """The path, if its ending and folder allow a result to be written there.

    Raises:
        UserError: unknown ending, or no such folder.
    """
    output = pathlib.Path(path)
    if output.suffix not in SUFFIXES:
        raise UserError(f"--output must end in {' or '.join(SUFFIXES)}, got {path!r}")
    if not output.absolute().parent.is_dir():
        raise UserError(f"--output: there is no folder {str(output.parent)!r}")
    return output


def write(rows: Sequence[Row], path: pathlib.Path) -> None:
    """Writes the rows with full precision; the ending of `path` says in which format."""
    records = [{name: getattr(row, name) for name in _COLUMNS} for row in rows]
    with path.open("w", encoding="utf-8", newline="") as file:
        if path.suffix == ".json":
            json.dump(records, file, indent=2)
            return
        writer = csv.DictWriter(file, _COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)


def _text(value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, float | int):
        return str(value)
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
