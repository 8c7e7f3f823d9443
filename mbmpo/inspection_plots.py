"""Figures of what `mbmpo.inspection` measured.

Shapes: `E` models, `O` observation, `H` predicted steps.
"""

import math
from collections.abc import Iterator
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mbmpo import inspection
from mbmpo.inspection import HISTOGRAM_EDGES, OneStep, OpenLoop

_MOST_PANELS = 24
_COLUMNS = 4
_MEAN, _REAL, _REFERENCE = "tab:red", "black", "0.55"


def rollout_figure(loop: OpenLoop, rollout: int, title: str) -> Figure:
    """One rollout, a panel per dimension: what happened, each model's prediction, their mean and its band.

    With more dimensions than fit, those that the mean predicts worst are shown. The vertical axis follows the real
    values, so that a model that runs away leaves the panel.
    """
    shown = shown_dimensions(loop)
    E = loop.predicted.shape[2]
    last = int(loop.real.valid[rollout].sum())
    steps = np.arange(last + 1)
    figure, panels = _grid(len(shown), (3.6, 2.1))
    for panel, dimension in zip(panels, shown, strict=True):
        mean, spread = (values[rollout, : last + 1, dimension] for values in (loop.mean, loop.spread))
        real = loop.real.observation[rollout, : last + 1, dimension]
        panel.fill_between(steps, mean - spread, mean + spread, color=_MEAN, alpha=0.2, linewidth=0, label="± 1 std")
        for k in range(E):
            path = loop.predicted[rollout, : last + 1, k, dimension]
            panel.plot(steps, path, color=model_colour(k, E), linewidth=0.8, label=f"model {k}")
        panel.plot(steps, mean, color=_MEAN, linewidth=1.6, label="mean of the models")
        panel.plot(steps, real, color=_REAL, linewidth=1.6, linestyle="--", label="real")
        panel.set_title(f"observation {dimension}", fontsize=9)
        panel.set_ylim(*_limits(real, float(loop.scale[dimension])))
        if panels.index(panel) + _COLUMNS >= len(panels):
            panel.set_xlabel("steps predicted", fontsize=8)
    figure.supylabel("value, in the observation's units", fontsize=9)
    _legend_below(figure, panels[0])
    _title(figure, title, len(shown), loop.scale.size)
    return figure


def error_by_step_figure(loop: OpenLoop, title: str) -> Figure:
    """Error over the steps predicted: models, mean, spread and reference; and the mean's by dimension."""
    E, H = loop.predicted.shape[2], loop.rmse.shape[0]
    steps = np.arange(1, H + 1)
    figure = Figure(figsize=(11.0, 4.6), layout="constrained")
    axes = figure.add_subplot(1, 2, 1)
    errors = inspection.relative(loop.rmse, loop.scale)
    for k in range(E):
        axes.plot(steps, errors[:, k], color=model_colour(k, E), linewidth=0.9, label=f"model {k}")
    axes.plot(steps, errors[:, -1], color=_MEAN, linewidth=2.0, label="mean of the models")
    spread = inspection.relative(loop.mean_spread, loop.scale)
    axes.plot(steps, spread, color=_MEAN, linestyle=":", linewidth=1.6, label="std over the models")
    without = inspection.relative(loop.rmse_no_change, loop.scale)
    axes.plot(steps, without, color=_REFERENCE, linestyle="--", linewidth=1.4, label="predicting no change")
    axes.set_yscale("log")
    axes.set_xlabel("steps predicted")
    axes.set_ylabel("RMS error / std of the observation")
    left = int(loop.num_rollouts[loop.num_rollouts > 0][-1])
    axes.set_title(f"all dimensions; {left} of {loop.num_rollouts[0]} rollouts last to the end", fontsize=10)
    axes.grid(alpha=0.3, which="both", linewidth=0.5)
    _legend_below(figure, axes)

    axes = figure.add_subplot(1, 2, 2)
    by_dimension = (loop.rmse[:, -1] / loop.scale).T
    finite = by_dimension[np.isfinite(by_dimension) & (by_dimension > 0)]
    high = float(finite.max()) if finite.size else 1.0
    low = max(float(finite.min()), high * 1e-4) if finite.size else 0.1
    image = axes.imshow(
        np.maximum(by_dimension, low),
        aspect="auto",
        interpolation="nearest",
        norm=matplotlib.colors.LogNorm(low, max(high, low * 1.01)),
        extent=(0.5, H + 0.5, by_dimension.shape[0] - 0.5, -0.5),
    )
    axes.set_xlabel("steps predicted")
    axes.set_ylabel("observation's dimension")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title("mean of the models, by dimension", fontsize=10)
    figure.colorbar(image, ax=axes, label="RMS error / std of the observation")
    figure.suptitle(title, fontsize=10)
    return figure


def one_step_figure(buffer: OneStep, fresh: OneStep | None, title: str) -> Figure:
    """Four views of one-step errors: by dimension, against age, by predicted change, and their histogram."""
    figure = Figure(figsize=(11.0, 8.0), layout="constrained")
    dimensions = figure.add_subplot(2, 2, 1)
    one_step_by_dimension(dimensions, buffer, fresh)

    E = buffer.rmse.shape[0] - 1
    axes = figure.add_subplot(2, 2, 2)
    for k, style in _styles(E):
        axes.plot(buffer.age, buffer.rmse_by_age[:, k], **style)
    axes.invert_xaxis()
    axes.set_ylim(bottom=0.0)
    axes.set_xlabel("age: transitions collected since (newest at the right)")
    axes.set_ylabel("RMS error / std of the change")
    axes.set_title("over the buffer's age", fontsize=10)

    axes = figure.add_subplot(2, 2, 3)
    for k, style in _styles(E):
        axes.plot(buffer.change, buffer.rmse_by_change[:, k], **style)
    axes.plot(
        buffer.change, buffer.spread_by_change, color=_MEAN, linestyle=":", linewidth=1.6, label="std over the models"
    )
    axes.plot(
        buffer.change, buffer.change, color=_REFERENCE, linestyle="--", linewidth=1.2, label="as large as the change"
    )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("predicted change (RMS over dimensions) / std of the change")
    axes.set_ylabel("RMS error / std of the change")
    axes.set_title("by the size of the predicted change", fontsize=10)

    axes = figure.add_subplot(2, 2, 4)
    centres = np.sqrt(HISTOGRAM_EDGES[1:] * HISTOGRAM_EDGES[:-1])
    for k, style in _styles(E):
        axes.plot(centres, buffer.histogram[:, k], drawstyle="steps-mid", **style)
    held = np.flatnonzero(buffer.histogram.any(axis=1))
    axes.set_xlim(HISTOGRAM_EDGES[max(held[0] - 1, 0)], HISTOGRAM_EDGES[min(held[-1] + 2, len(centres))])
    axes.set_xscale("log")
    axes.set_ylim(bottom=0.0)
    axes.set_xlabel("absolute error / std of the change")
    axes.set_ylabel("share of predictions")
    axes.set_title("histogram, all rows and dimensions", fontsize=10)
    for axes in figure.axes[1:]:
        axes.grid(alpha=0.3, linewidth=0.5)
    _legend_below(figure, dimensions, figure.axes[2])
    figure.suptitle(title, fontsize=10)
    return figure


def one_step_by_dimension(axes: Any, buffer: OneStep, fresh: OneStep | None) -> None:
    """Relative one-step error of every dimension on given axes: each model's dot, the mean's bar, fresh data's mark."""
    E = buffer.rmse.shape[0] - 1
    errors = buffer.rmse / buffer.scale
    place = np.arange(errors.shape[1])
    axes.bar(place, errors[-1], width=0.7, color=_MEAN, alpha=0.35, label="mean of the models")
    for k in range(E):
        offset = 0.5 * (k - (E - 1) / 2) / max(E, 1)
        axes.plot(place + offset, errors[k], ".", markersize=4, color=model_colour(k, E), label=f"model {k}")
    if fresh is not None:
        axes.plot(place, fresh.rmse[-1] / fresh.scale, "_", markersize=9, color=_REAL, label="mean, fresh rollouts")
    axes.axhline(1.0, color=_REFERENCE, linestyle="--", linewidth=1.0, label="always the mean change")
    axes.set_yscale("log")
    axes.set_xlabel("observation's dimension")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel("RMS error / std of the change")
    axes.set_title(f"by dimension, {buffer.num_rows:,} transitions", fontsize=10)
    axes.grid(alpha=0.3, axis="y", linewidth=0.5)
    lowest = errors[errors > 0]
    if lowest.size:
        axes.set_ylim(10.0 ** np.floor(np.log10(lowest.min())), max(2.0, 1.5 * float(errors.max())))


def shown_dimensions(loop: OpenLoop) -> list[int]:
    """Dimensions that a rollout's figure has room for: all, or those with the largest relative error of the mean."""
    if loop.scale.size <= _MOST_PANELS:
        return list(range(loop.scale.size))
    worst = np.nanmean(loop.rmse[:, -1] / loop.scale, axis=0)
    return sorted(np.argsort(worst)[-_MOST_PANELS:].tolist())


def model_colour(k: int, num_models: int) -> Any:
    """Blues and greens, away from the red of the mean."""
    return matplotlib.colormaps["viridis"](0.15 + 0.7 * k / max(num_models - 1, 1))


def _styles(num_models: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """Index among the errors and the line's style, the models first."""
    for k in range(num_models):
        yield k, {"color": model_colour(k, num_models), "linewidth": 0.9, "label": f"model {k}"}
    yield num_models, {"color": _MEAN, "linewidth": 2.0, "label": "mean of the models"}


def _limits(real: np.ndarray, scale: float) -> tuple[float, float]:
    low, high = float(real.min()), float(real.max())
    margin = 0.5 * max(high - low, scale)
    return low - margin, high + margin


def _grid(count: int, size: tuple[float, float]) -> tuple[Figure, list[Any]]:
    columns = min(_COLUMNS, count)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(max(size[0] * columns, 7.0), size[1] * rows + 1.0), layout="constrained")
    panels = [figure.add_subplot(rows, columns, index + 1) for index in range(count)]
    for panel in panels:
        panel.tick_params(labelsize=7)
        panel.grid(alpha=0.3, linewidth=0.5)
    return figure, panels


def _legend_below(figure: Figure, *panels: Any) -> None:
    """One legend for the figure, each label of the panels once."""
    entries: dict[str, Any] = {}
    for panel in panels:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    columns = max(1, int(figure.get_figwidth() / 1.75))
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=columns, fontsize=8)


def _title(figure: Figure, title: str, shown: int, all_: int) -> None:
    less = f" ({shown} of {all_} dimensions: those predicted worst)" if shown < all_ else ""
    figure.suptitle(f"{title}{less}", fontsize=10)
