"""Figures of a run in training: returns, model losses, one-step errors, and the maps of the plasticity study.

Shapes: `T` iterations, `E` models.
"""

from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from mbmpo import history as history_
from mbmpo import inspection, inspection_plots
from mbmpo.dynamics import DynamicsEnsemble
from mbmpo.history import History
from mbmpo.plasticity import Maps, map_metrics
from mbmpo.transitions import Transitions

_ROWS = 2000
_LOSS_LINES: dict[str, Any] = dict(zip(history_.LOSSES, ("--", "-"), strict=True))

_RETURNS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("real/return", "real, collected data", {"color": "0.5", "linestyle": "-"}),
    ("pre_update/return", "real, before adaptation", {"color": "tab:blue", "linestyle": "-"}),
    ("post_update/return", "real, after adaptation", {"color": "tab:blue", "linestyle": "--"}),
    (history_.IMAGINED_FIRST, "imagined, first update of the iteration", {"color": "tab:red", "linestyle": ":"}),
    (history_.IMAGINED_LAST, "imagined, last update of the iteration", {"color": "tab:red", "linestyle": "-"}),
)


def returns_figure(history: History, num_models: int) -> Figure:
    """Real and imagined returns over the iterations."""
    figure = Figure(figsize=(7.0, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for name, label, style in _RETURNS:
        at, values = history_.curve(history, name, num_models)
        if len(at):
            axes.plot(at, values, label=label, marker="o", markersize=_marker(len(at)), **style)
    _iteration_axis(axes)
    axes.set_ylabel("return (undiscounted)")
    figure.legend(loc="outside lower center", ncols=2, fontsize=8)
    return figure


def losses_figure(history: History, num_models: int) -> Figure:
    """Every model's training and validation loss after each fit."""
    figure = Figure(figsize=(7.0, 4.2), layout="constrained")
    axes = figure.add_subplot()
    entries = []
    for k in range(num_models):
        colour = inspection_plots.model_colour(k, num_models)
        for kind, line in _LOSS_LINES.items():
            at, values = history_.curve(history, f"model/{kind}_loss_{k}", num_models)
            style: dict[str, Any] = {"color": colour, "linestyle": line, "marker": "o", "markersize": _marker(len(at))}
            axes.plot(at, values, linewidth=1.1, **style)
        entries.append(Line2D([], [], color=colour, label=f"model {k}"))
    entries += [Line2D([], [], color="0.3", linestyle=line, label=kind) for kind, line in _LOSS_LINES.items()]
    if (history.value[history.measured] > 0).any():
        axes.set_yscale("log")
    _iteration_axis(axes)
    axes.set_ylabel("loss: squared error of normalised changes")
    figure.legend(handles=entries, loc="outside lower center", ncols=5, fontsize=8)
    return figure


def one_step_figure(ensemble: DynamicsEnsemble, effective: Any, buffer: Transitions) -> Figure:
    """One-step errors by dimension on the newest 2000 transitions, most of which the models were fitted to."""
    newest = Transitions(*(values[-_ROWS:] for values in buffer))
    found = inspection.one_step(ensemble, effective, newest, inspection.change_scale(buffer))
    figure = Figure(figsize=(8.0, 4.4), layout="constrained")
    axes = figure.add_subplot()
    inspection_plots.one_step_by_dimension(axes, found, None)
    figure.legend(loc="outside lower center", ncols=4, fontsize=8)
    return figure


def plasticity_figure(maps: Maps, title: str = "") -> Figure:
    """The latest maps of the plane: above, where the models disagree; below, where adaptation changes the policy.

    The lower title tells their correlation over the grid, unless a map is constant.
    """
    correlation = map_metrics(maps)["plasticity/correlation"]
    told = "" if correlation is None else f" (correlation {correlation:.2f})"
    figure = Figure(figsize=(5.2, 8.2), layout="constrained")
    left, right, bottom, top = (float(edge) for edge in maps.extent)
    for number, (values, label) in enumerate(
        ((maps.std, "std over the models, m"), (maps.kl, "KL (before ‖ after adaptation), nats"))
    ):
        axes = figure.add_subplot(2, 1, number + 1)
        image = axes.imshow(values[-1], origin="lower", extent=(left, right, bottom, top), interpolation="nearest")
        axes.set_xlabel("x, m")
        axes.set_ylabel("y, m")
        figure.colorbar(image, ax=axes, label=label)
        axes.set_title(("models' disagreement", f"policy's change{told}")[number], fontsize=10)
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def _iteration_axis(axes: Any) -> None:
    axes.set_xlabel("iteration")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3, linewidth=0.5)


def _marker(count: int) -> float:
    """Size of the dots: visible where there are few, and where a single one has no line."""
    return 3.0 if count <= 30 else 0.0
