"""Curves of loss and accuracy against rounds or virtual time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter, PercentFormatter, StrMethodFormatter
from numpy.typing import NDArray

from fedgc.experiment.target import Target
from fedgc.report.conditions import by_condition, strategies_of
from fedgc.report.read import Run
from fedgc.report.shown import shown
from fedgc.report.style import (
    FEW,
    GREY,
    LABEL,
    PAGE,
    SMALL,
    TITLE,
    layout,
    legend_below,
    legend_height,
    line_look,
    plain,
    wrapped,
)
from fedgc.report.tables import Entry
from fedgc.report.unit import AXIS, Unit

Vector = NDArray[np.float64]
Look = Mapping[str, Any]
Quantity = Literal["accuracy", "loss"]

_LABELS = {"accuracy": "test accuracy", "loss": "loss"}


def curve_figure(
    entries: Sequence[Entry], quantity: Quantity, unit: Unit, target: Target, reference: str | None = None
) -> Figure:
    """Draw accuracy or loss against rounds or virtual time, a panel for each condition, a line for each strategy.

    The line is the median over the seeds, since one run that diverges would carry a mean away; where strategies are few
    a band goes from the lowest to the highest. It ends where half of the runs are over, mostly at the target; until
    then those that are over stay at what they ended with. Against time a run stands at what its last round had reached,
    or, where not every round was kept, on the straight line between those that were: steps of many rounds would tell of
    pauses that there were not.

    Where strategies are many the reference and those that are soon at the target (:func:`fedgc.report.shown.shown`)
    have colours, the same in all panels, and all others one grey.
    """
    groups = by_condition(entries)
    strategies = strategies_of(entries)
    coloured = shown(entries, reference)
    looks = {label: line_look(index) for index, label in enumerate(coloured)}
    columns = 1 if len(groups) == 1 else 2 if len(groups) <= 2 * _ROWS else 3
    rows = -(-len(groups) // columns)
    handles = [Line2D([], [], lw=1.5, ms=4.5, mec="white", mew=0.5, **look) for look in looks.values()]
    labels = [*coloured]
    if len(coloured) < len(strategies):
        handles.append(Line2D([], [], color=GREY, lw=1.0))
        labels.append(f"others ({len(strategies) - len(coloured)})")
    width = PAGE if columns > 1 else 5.6
    height = (2.15 if columns > 1 else 3.2) * rows + 0.25 + legend_height(labels, width)
    figure = Figure(figsize=(width, height), layout=layout())
    panels = []
    for number, (title, group) in enumerate(groups.items()):
        axes = figure.add_subplot(rows, columns, number + 1)
        panels.append((axes, *_panel(axes, group, looks, quantity, unit, bands=len(strategies) <= FEW)))
        axes.set_xlim(0.0, _right(group, coloured, unit, target))
        axes.set_title(wrapped(title, 48), fontsize=TITLE, parse_math=False)
        if number + columns >= len(groups):
            axes.set_xlabel(AXIS[unit], fontsize=LABEL)
        if number % columns == 0:
            axes.set_ylabel(_LABELS[quantity], fontsize=LABEL)
    # One kind of scale, so that slopes mean the same in all panels.
    logarithmic = quantity == "loss" and all(low > 0.0 for _, low, _ in panels)
    logarithmic &= any(first > 4.0 * low for _, low, first in panels)
    for axes, low, first in panels:
        _scale(axes, quantity, low, first, logarithmic=logarithmic)
        if target.quantity == quantity:
            _mark_target(axes, target)
    legend_below(figure, handles, labels)
    return figure


#: Rows of panels up to which two columns of them fit a page.
_ROWS = 4


def _panel(
    axes: Axes, group: Sequence[Entry], looks: Mapping[str, Look], quantity: Quantity, unit: Unit, *, bands: bool
) -> tuple[float, float]:
    """Draw the lines of a condition; return the least of what they show and the least at their start, or the best."""
    low, first, best = np.inf, 0.0, 0.0
    for entry in group:
        instants = _instants(entry, unit)
        curves = np.array([_read_at(instants, run, quantity, unit) for run in entry.runs])
        curves[np.isnan(curves)] = 0.0 if quantity == "accuracy" else np.inf
        middle = np.median(curves, axis=0)
        # What a round brings is there once it is over.
        steps = unit == "seconds" and all(_is_whole(run) for run in entry.runs)
        drawstyle = "steps-post" if steps else "default"
        look = looks.get(entry.strategy)
        if look is None:
            axes.plot(instants, middle, drawstyle=drawstyle, color=GREY, lw=0.8, zorder=1.5)
        else:
            _line(axes, instants, middle, look, index=list(looks).index(entry.strategy), drawstyle=drawstyle)
        band = bands and look is not None and len(entry.runs) > 1
        if band and look is not None:
            shade = {"color": look["color"], "alpha": 0.1, "linewidth": 0}
            axes.fill_between(instants, curves.min(axis=0), curves.max(axis=0), step="post" if steps else None, **shade)
        extent = curves if band else middle
        low, first = min(low, float(extent.min())), max(first, float(np.min(curves[:, 0])))
        best = max(best, float(extent.max())) if quantity == "accuracy" else best
    plain(axes, SMALL)
    return (low, first) if quantity == "loss" else (best, best)


def _line(axes: Axes, instants: Vector, values: Vector, look: Look, *, index: int, drawstyle: str) -> None:
    # Markers begin at different places, so that lines which run together do not hide each other's.
    every = (0.03 + 0.2 * ((0.618 * index) % 1.0), 0.25)
    axes.plot(instants, values, drawstyle=drawstyle, lw=1.3, ms=4.5, mec="white", mew=0.5, markevery=every, **look)


def _scale(axes: Axes, quantity: Quantity, low: float, first: float, *, logarithmic: bool) -> None:
    if quantity == "accuracy":
        axes.set_ylim(max(0.0, low - 0.6), min(1.0, low + 0.05))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
        return
    # Runs that diverge leave by the top.
    axes.set_ylim(0.9 * low, 1.2 * first)
    if logarithmic:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())


def _clock(run: Run, unit: Unit) -> Vector:
    return run.rounds if unit == "rounds" else run.seconds


def _right(group: Sequence[Entry], coloured: Sequence[str], unit: Unit, target: Target) -> float:
    """Return where the axis ends: where the lines in colour do, but a method that waits may take many times as long."""
    drawn = [entry for entry in group if entry.strategy in coloured] or group
    ends = [float(_instants(entry, unit)[-1]) for entry in drawn]
    times = [float(np.mean([run.first(target, unit) for run in entry.runs])) for entry in drawn]
    reached = [time for time in times if 0.0 < time < np.inf]
    most = 2.5 * float(np.median(reached)) if reached else 1.5 * float(np.median(ends))
    return 1.02 * min(max(ends), most)


def _instants(entry: Entry, unit: Unit) -> Vector:
    """Return where the curve of an entry is drawn: up to where half of its runs are over."""
    over = sorted(float(_clock(run, unit)[-1]) for run in entry.runs)[len(entry.runs) // 2]
    known = np.unique(np.concatenate([_clock(run, unit) for run in entry.runs]))
    return known[known <= over]


def _is_whole(run: Run) -> bool:
    """Return whether every round of a run was kept."""
    return bool(np.all(np.diff(run.rounds) <= 1.0))


def _read_at(instants: Vector, run: Run, quantity: Quantity, unit: Unit) -> Vector:
    values = run.accuracy if quantity == "accuracy" else run.loss
    if not _is_whole(run):
        return np.interp(instants, _clock(run, unit), values)
    return values[np.maximum(np.searchsorted(_clock(run, unit), instants, side="right") - 1, 0)]


def _mark_target(axes: Axes, target: Target) -> None:
    bottom, top = axes.get_ylim()
    room = 0.9 if target.quantity == "accuracy" else 0.6
    axes.set_ylim(min(bottom, room * target.value), max(top, min(1.05 * target.value, 1.0)))
    axes.axhline(target.value, color="0.35", linewidth=0.9, zorder=1)
    # On the right, where few lines are left, on the side from which none comes.
    axes.annotate(
        f"target {target.short}",
        (1.0, target.value),
        xycoords=axes.get_yaxis_transform(),
        xytext=(-2, 2 if target.quantity == "accuracy" else -2),
        textcoords="offset points",
        ha="right",
        va="bottom" if target.quantity == "accuracy" else "top",
        fontsize=SMALL,
        color="0.25",
    )
