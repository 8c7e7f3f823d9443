"""What a figure shows, before it is drawn: panels of curves, and the same as a table."""

import dataclasses
from typing import Any

import numpy as np

from metarl.reporting.intervals import Summary


@dataclasses.dataclass
class Curve:
    """One group's line.

    Attributes:
        label: of the group.
        num_runs: runs it is made of.
        x: [X].
        summary: of the runs at every x.
    """

    label: str
    num_runs: int
    x: np.ndarray
    summary: Summary


@dataclasses.dataclass
class Panel:
    """One pair of axes.

    Attributes:
        title: above it.
        x_label: below it.
        y_label: beside it.
        curves: in the legend's order.
        log_x: whether the x axis is logarithmic.
        integer_x: whether x counts something.
        markers: whether points are marked; few are always.
        reference_lines: height by label, for a dashed line from the end of that label's curve on.
        x_end: where the axis ends, or None.
    """

    title: str
    x_label: str
    y_label: str
    curves: list[Curve]
    log_x: bool = False
    integer_x: bool = False
    markers: bool = False
    reference_lines: dict[str, float] = dataclasses.field(default_factory=dict)
    x_end: float | None = None


@dataclasses.dataclass
class FigurePlan:
    """One figure.

    Attributes:
        name: of its files.
        rows: panels, row by row; rows may differ in length.
        band: 'interval' for bootstrap intervals, 'std' for one population standard deviation.
    """

    name: str
    rows: list[list[Panel]]
    band: str = "interval"

    @property
    def panels(self) -> list[Panel]:
        """All panels in order."""
        return [panel for row in self.rows for panel in row]

    def labels(self) -> list[str]:
        """The groups' labels in order, each once."""
        return list(dict.fromkeys(curve.label for panel in self.panels for curve in panel.curves))

    def table(self) -> list[dict[str, Any]]:
        """Returns every number drawn: a row per panel, group and x; quantities that nothing has are left out."""
        rows = []
        for panel in self.panels:
            for curve in panel.curves:
                columns = {
                    name: values
                    for name, values in curve.summary._asdict().items()
                    if name in ("runs", "mean") or self.band == "interval" or not np.isnan(values).all()
                }
                for i, x in enumerate(curve.x):
                    row = {"panel": panel.title, "y": panel.y_label, "group": curve.label, panel.x_label: _plain(x)}
                    rows.append(row | {name: _plain(values[i]) for name, values in columns.items()})
        return rows


def _plain(value: Any) -> int | float | None:
    number = float(value)
    if np.isnan(number):
        return None
    return int(number) if number.is_integer() and abs(number) < 2**53 else number
