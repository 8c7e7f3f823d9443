"""Draws a `FigurePlan`: lines with bands, one legend for all panels. Uses no global state of matplotlib."""

import math
import textwrap
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, MaxNLocator

from metarl.reporting.panels import Curve, FigurePlan, Panel

STATISTICS = ("both", "mean", "iqm")
# Okabe and Ito's colours, which most forms of colour blindness tell apart
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#4D4D4D", "#B8A800")
_PANEL = (3.6, 2.7)  # inches
_FEW = 30
_NOTES = {
    ("interval", "both"): "solid: mean with its 95 % bootstrap interval; dashed: interquartile mean",
    ("interval", "mean"): "mean with its 95 % bootstrap interval",
    ("interval", "iqm"): "interquartile mean with its 95 % bootstrap interval",
    ("std", ""): "mean ± 1 population standard deviation",
}
_FEWER = "pale: where not all runs have data"


def draw(plan: FigurePlan, statistic: str = "both") -> Figure:
    """Draws a figure.

    Args:
        plan: what it shows.
        statistic: 'mean', 'iqm', or 'both' for the mean and its band with the interquartile mean as a line.
    """
    width = max(len(row) for row in plan.rows)
    colours = _colours(plan.labels())
    entries = _legend_entries(plan, colours)
    size = max(width * _PANEL[0], 5.4)
    widest = 0.6 + 0.065 * max((len(str(entry.get_label())) for entry in entries), default=0)
    columns = min(len(entries), max(1, int(size / widest)))
    height = len(plan.rows) * _PANEL[1] + 0.22 * math.ceil(len(entries) / columns) + 0.45
    figure = Figure(figsize=(size, height), layout="constrained", dpi=150)
    fewer = False
    for r, row in enumerate(plan.rows):
        for c, panel in enumerate(row):
            axes = figure.add_subplot(len(plan.rows), width, r * width + c + 1)
            fewer |= _draw_panel(axes, panel, colours, statistic, plan.band)
    note = _NOTES[plan.band, statistic if plan.band == "interval" else ""]
    if plan.band == "interval" and all(curve.num_runs < 2 for panel in plan.panels for curve in panel.curves):
        note = "single runs, without interval"
    figure.legend(
        handles=entries,
        loc="outside lower center",
        ncols=columns,
        fontsize=8,
        title=textwrap.fill(f"{note}; {_FEWER}" if fewer else note, int(16 * size)),
        title_fontsize=7,
        frameon=False,
    )
    return figure


def _draw_panel(axes: Axes, panel: Panel, colours: dict[str, Any], statistic: str, band: str) -> bool:
    """Draws one panel; returns whether a curve has a part that not all of its runs reach."""
    fewer = False
    few = max((len(curve.x) for curve in panel.curves), default=0) <= _FEW
    if panel.log_x:
        axes.set_xscale("log")
    for curve in panel.curves:
        colour = colours[curve.label]
        low, high = _band(curve, statistic, band)
        axes.fill_between(curve.x, low, high, color=colour, alpha=0.18, linewidth=0)
        marker: dict[str, Any] = {"marker": "o", "markersize": 3.0} if few or panel.markers else {}
        main = curve.summary.iqm if statistic == "iqm" and band == "interval" else curve.summary.mean
        fewer |= _line(axes, curve, main, color=colour, linewidth=1.5, **marker)
        if statistic == "both" and band == "interval" and curve.num_runs > 2:  # of one or two runs they are equal
            _line(axes, curve, curve.summary.iqm, color=colour, linewidth=1.0, linestyle="--")
        if curve.label in panel.reference_lines:
            height = panel.reference_lines[curve.label]
            end = panel.x_end or axes.get_xlim()[1]
            axes.plot([curve.x[-1], end], [height, height], color=colour, linewidth=1.0, linestyle=(0, (6, 3)))
    if panel.x_end is not None:
        axes.set_xlim(right=panel.x_end)
    largest = max((float(np.max(curve.x)) for curve in panel.curves if len(curve.x)), default=0.0)
    if panel.integer_x:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if not panel.log_x and largest >= 10_000:
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axes.set_title(_literal(panel.title), fontsize=9)
    axes.set_xlabel(_literal(panel.x_label), fontsize=8)
    axes.set_ylabel(_literal(panel.y_label), fontsize=8)
    axes.tick_params(which="both", labelsize=7)
    axes.grid(alpha=0.3, linewidth=0.5)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return fewer


def _line(axes: Axes, curve: Curve, values: np.ndarray, **style: Any) -> bool:
    """Draws a line, pale where fewer runs are left than its group has; a pooled curve is solid throughout."""
    complete = curve.summary.runs >= curve.num_runs
    if np.isnan(curve.summary.iqm).all() or complete.all():
        axes.plot(curve.x, values, **style)
        return False
    touching = ~complete
    touching[1:] |= ~complete[:-1]  # so that the pale part begins where the solid one ends
    touching[:-1] |= ~complete[1:]
    axes.plot(curve.x, np.where(complete, values, np.nan), **style)
    axes.plot(curve.x, np.where(touching, values, np.nan), **style | {"alpha": 0.45})
    return True


def _band(curve: Curve, statistic: str, band: str) -> tuple[np.ndarray, np.ndarray]:
    summary = curve.summary
    if band == "std":
        return summary.mean - summary.std, summary.mean + summary.std
    if statistic == "iqm":
        return summary.iqm_low, summary.iqm_high
    return summary.mean_low, summary.mean_high


def _legend_entries(plan: FigurePlan, colours: dict[str, Any]) -> list[Line2D]:
    counts: dict[str, set[int]] = {}
    for panel in plan.panels:
        for curve in panel.curves:
            counts.setdefault(curve.label, set()).add(curve.num_runs)
    entries = []
    for label, numbers in counts.items():
        number = str(min(numbers)) if len(numbers) == 1 else f"{min(numbers)}-{max(numbers)}"
        text = f"{_literal(label)} ({number} run{'' if number == '1' else 's'})"
        entries.append(Line2D([], [], color=colours[label], linewidth=1.5, label=text))
    return entries


def _literal(text: str) -> str:
    """Keeps matplotlib from reading a folder's or a value's dollar signs as a formula."""
    return text.replace("$", r"\$")


def _colours(labels: list[str]) -> dict[str, Any]:
    if len(labels) <= len(_COLOURS):
        return dict(zip(labels, _COLOURS, strict=False))
    many = matplotlib.colormaps["turbo"]
    return {label: many(0.05 + 0.9 * i / (len(labels) - 1)) for i, label in enumerate(labels)}
