"""Curves of loss and accuracy against rounds or virtual time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter, PercentFormatter, StrMethodFormatter
from numpy.typing import NDArray

from fedgc.experiment.target import Target
from fedgc.report.conditions import by_condition, strategies_of
from fedgc.report.read import Run
from fedgc.report.style import FEW, layout, legend_outside, legend_width, look_of, plain
from fedgc.report.tables import Entry
from fedgc.report.unit import AXIS, Unit

Vector = NDArray[np.float64]
Quantity = Literal["accuracy", "loss"]

_LABELS = {"accuracy": "test accuracy", "loss": "loss"}


def curve_figure(entries: Sequence[Entry], quantity: Quantity, unit: Unit, target: Target) -> Figure:
    """Draw accuracy or loss against rounds or virtual time, a panel for each condition, a line for each strategy.

    The line is the median over the seeds, since one run that diverges would carry a mean away; where strategies are few
    a band goes from the lowest to the highest. It ends where half of the runs are over, mostly at the target; until
    then those that are over stay at what they ended with. Against time a run stands at what its last round had reached,
    or, where not every round was kept, on the straight line between those that were: steps of many rounds would tell of
    pauses that there were not.
    """
    groups = by_condition(entries)
    strategies = strategies_of(entries)
    columns = min(len(groups), 2 if len(groups) <= 4 else 3)
    rows = -(-len(groups) // columns)
    width = (4.4 if columns > 1 else 6.0) * columns + legend_width(strategies)
    below = 0.26 * (1 + len(strategies) // 2) if legend_width(strategies) == 0.0 else 0.0
    height = max(3.4 * rows + below, 0.5 + 0.22 * len(strategies) if below == 0.0 else 0.0)
    figure = Figure(figsize=(width, height), layout=layout())
    for number, (title, group) in enumerate(groups.items()):
        axes = figure.add_subplot(rows, columns, number + 1)
        _panel(axes, group, strategies, quantity, unit)
        axes.set_xlim(0.0, _right(group, unit, target))
        if target.quantity == quantity:
            _mark_target(axes, target)
        axes.set_title(title, fontsize=10, parse_math=False)
        axes.set_xlabel(AXIS[unit], fontsize=10)
        if number % columns == 0:
            axes.set_ylabel(_LABELS[quantity], fontsize=10)
    handles = [Line2D([], [], lw=1.5, ms=5, mec="white", mew=0.5, **look_of(i)) for i in range(len(strategies))]
    legend_outside(figure, handles, strategies)
    return figure


def _panel(axes: Axes, group: Sequence[Entry], strategies: Sequence[str], quantity: Quantity, unit: Unit) -> None:
    low, start, best = np.inf, 0.0, 0.0
    few = len(strategies) <= FEW
    for entry in group:
        index = strategies.index(entry.strategy)
        instants = _instants(entry, unit)
        curves = np.array([_read_at(instants, run, quantity, unit) for run in entry.runs])
        curves[np.isnan(curves)] = 0.0 if quantity == "accuracy" else np.inf
        middle = np.median(curves, axis=0)
        look = look_of(index)
        # Markers begin at different places, so that lines which run together do not hide each other's.
        apart = 0.16 if few else 0.3
        every = (0.02 + apart * ((0.618 * index) % 1.0), apart)
        # What a round brings is there once it is over.
        steps = unit == "seconds" and all(_is_whole(run) for run in entry.runs)
        axes.plot(
            instants,
            middle,
            drawstyle="steps-post" if steps else "default",
            lw=1.5 if few else 1.1,
            ms=5,
            mec="white",
            mew=0.5,
            markevery=every,
            **look,
        )
        if few and len(entry.runs) > 1:
            band = {"color": look["color"], "alpha": 0.1, "linewidth": 0}
            axes.fill_between(instants, curves.min(axis=0), curves.max(axis=0), step="post" if steps else None, **band)
        low, start = min(low, float(curves.min())), max(start, float(np.min(curves[:, 0])))
        best = max(best, float(curves.max())) if quantity == "accuracy" else best
    plain(axes)
    if quantity == "accuracy":
        axes.set_ylim(max(0.0, best - 0.6), min(1.0, best + 0.03))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
        return
    # Runs that diverge leave by the top.
    axes.set_ylim(0.9 * low, 1.2 * start)
    if low > 0.0 and start > 4.0 * low:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())


def _clock(run: Run, unit: Unit) -> Vector:
    return run.rounds if unit == "rounds" else run.seconds


def _right(group: Sequence[Entry], unit: Unit, target: Target) -> float:
    """Return where the axis ends: in virtual time a method that waits may take many times as long as all others."""
    ends = [max(float(_clock(run, unit)[-1]) for run in entry.runs) for entry in group]
    if unit == "rounds":
        return max(ends)
    times = [float(np.mean([run.first(target, "seconds") for run in entry.runs])) for entry in group]
    reached = [seconds for seconds in times if 0.0 < seconds < np.inf]
    return min(max(ends), 2.5 * float(np.median(reached)) if reached else 1.5 * float(np.median(ends)))


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
    room = 0.9 if target.quantity == "accuracy" else 0.75
    axes.set_ylim(min(bottom, room * target.value), max(top, min(1.05 * target.value, 1.0)))
    axes.axhline(target.value, color="0.35", linewidth=0.9, zorder=1)
    # On the left, where every curve is still far from it.
    axes.annotate(
        f"target {target.short}",
        (0.0, target.value),
        xycoords=axes.get_yaxis_transform(),
        xytext=(4, 2 if target.quantity == "accuracy" else -2),
        textcoords="offset points",
        va="bottom" if target.quantity == "accuracy" else "top",
        fontsize=8,
        color="0.25",
    )
