"""The figures of a report beside its curves: the way to the target, and calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, NullLocator, StrMethodFormatter
from numpy.typing import NDArray

from fedgc.experiment.figure import COLOURS
from fedgc.experiment.target import Target
from fedgc.report.conditions import by_condition, strategies_of
from fedgc.report.ratios import pairs_of
from fedgc.report.shown import MOST, shown
from fedgc.report.style import LABEL, PAGE, SMALL, TITLE, layout, legend_below, legend_height, line_look, plain, wrapped
from fedgc.report.tables import Entry, best_of
from fedgc.report.unit import AXIS, Unit

#: Ratio of the largest to the smallest value beyond which an axis is logarithmic.
_WIDE = 8.0

#: What residual errors are compared with their prediction, and how axes call them.
_ERRORS = {
    "observed": "residual error observed (by who came)",
    "measured": "residual error measured (all shards)",
}


def way_figure(entries: Sequence[Entry], target: Target, unit: Unit) -> Figure:
    """Draw rounds or seconds to the target, a panel for each condition and a row for each strategy.

    A dot is the mean with its 95 % confidence interval, a small one a seed; a strategy that does not reach the target
    with every seed has words beside the panel in place of a mean.
    """
    groups = by_condition(entries)
    strategies = strategies_of(entries)
    columns = min(len(groups), 2)
    # Three panels stand abreast, beside shorter lines of names, where two would be too long for a page.
    if _height(_row_heights(strategies, columns), -(-len(groups) // columns)) > _PAGE_HEIGHT:
        columns = 3
    heights = _row_heights(strategies, columns)
    at = dict(zip(strategies, np.cumsum(heights) - 0.5 * heights, strict=True))
    names = [wrapped(label, _NAME[columns]) for label in strategies]
    rows = -(-len(groups) // columns)
    figure = Figure(figsize=(PAGE if columns > 1 else 5.6, _height(heights, rows)), layout=layout())
    extents = [_extent(group) for group in groups.values()]
    # One kind of scale for all panels, that of the widest.
    logarithmic = any(0.0 < _WIDE * low < high for low, high in extents)
    for number, (title, group) in enumerate(groups.items()):
        axes = figure.add_subplot(rows, columns, number + 1)
        _way_scale(axes, *extents[number], logarithmic=logarithmic, narrow=columns > 2)
        _way_panel(axes, group, at)
        axes.set_title(wrapped(title, 90 // columns), fontsize=TITLE, parse_math=False)
        axes.set_yticks(list(at.values()), names, fontsize=SMALL, parse_math=False)
        axes.tick_params(axis="y", labelleft=number % columns == 0, length=0)
        axes.set_ylim(float(heights.sum()), 0.0)
    figure.supxlabel(f"{AXIS[unit]} to {target.text}", fontsize=LABEL)
    return figure


#: Characters of a line of a strategy's name beside so many panels.
_NAME = {1: 40, 2: 40, 3: 30}

#: Inches beyond which a figure is too long for a page.
_PAGE_HEIGHT = 10.0


def _row_heights(strategies: Sequence[str], columns: int) -> NDArray[np.float64]:
    """Return the height of each strategy's row, relative to that of one whose name has a single line."""
    return np.array([0.35 + 0.65 * len(wrapped(label, _NAME[columns]).splitlines()) for label in strategies])


def _height(heights: NDArray[np.float64], rows: int) -> float:
    total = float(heights.sum())
    return rows * ((0.165 if total <= 16.0 else 0.145) * total + 0.45) + 0.3


def _way_scale(axes: Axes, low: float, high: float, *, logarithmic: bool, narrow: bool) -> None:
    """Give an axis its ends, and as many ticks as have room."""
    plain(axes, SMALL)
    if high <= 0.0:
        axes.set_xticks([])
    elif logarithmic and low > 0.0:
        axes.set_xscale("log")
        axes.set_xlim(low / 1.15, high * 1.15)
        if high < 4.0 * low:
            steps: tuple[float, ...] = (1.0, 2.0, 3.0, 5.0) if narrow else (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
        elif high < 100.0 * low:
            steps = (1.0, 3.0) if narrow else (1.0, 2.0, 5.0)
        else:
            steps = (1.0,)
        axes.xaxis.set_major_locator(LogLocator(subs=steps))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.set_xlim(0.0, 1.08 * high)
        axes.xaxis.set_major_locator(MaxNLocator(3 if narrow else 5))


def _way_panel(axes: Axes, group: Sequence[Entry], at: Mapping[str, float]) -> None:
    best = best_of(group)
    for entry in group:
        row = at[entry.strategy]
        seeds = entry.reached[np.isfinite(entry.reached)]
        axes.plot(seeds, np.full(seeds.size, row), "o", color="0.6", ms=2.5, zorder=2)
        if not np.isfinite(entry.mean):
            # Beside the panel, where no seed that got there is hidden by it.
            axes.text(
                1.02, row, _never(entry), transform=axes.get_yaxis_transform(), ha="left", va="center",
                fontsize=7.0, color="0.35",
            )  # fmt: skip
            continue
        colour, marker = (COLOURS[1], "D") if entry is best else (COLOURS[5], "o")
        error = None if np.isnan(entry.half_width) else [[min(entry.half_width, entry.mean)], [entry.half_width]]
        axes.errorbar(entry.mean, row, xerr=error, fmt=marker, color=colour, ms=4.5, capsize=2.0, lw=1.2, zorder=3)


def _never(entry: Entry) -> str:
    return f"never ({len(entry.runs) - entry.n_reached}/{len(entry.runs)})"


def _extent(group: Sequence[Entry]) -> tuple[float, float]:
    """Return the least and the largest of what is drawn, both 0 if nothing is.

    An interval may go below zero where few seeds scatter widely; on a logarithmic axis it leaves by its end.
    """
    seeds = np.concatenate([entry.reached[np.isfinite(entry.reached)] for entry in group])
    if not seeds.size:
        return 0.0, 0.0
    means = np.array([(entry.mean, np.nan_to_num(entry.half_width)) for entry in group if np.isfinite(entry.mean)])
    means = means.reshape(-1, 2)
    low = np.maximum(means[:, 0] - means[:, 1], seeds.min() / 2.0)
    return float(np.append(low, seeds).min()), float(np.append(means.sum(axis=1), seeds).max())


def calibration_figure(entries: Sequence[Entry], reference: str | None = None) -> Figure | None:
    """Draw residual errors observed and measured against the one predicted: a point is the mean over a run's rounds.

    None if no strategy predicts any. The band is a tenth around equality. Strategies that the curves show in colour
    have the same look here.
    """
    points = {
        name: {
            label: np.concatenate([pairs_of(entry, name) for entry in entries if entry.strategy == label])
            for label in strategies_of(entries)
        }
        for name in _ERRORS
    }
    points = {name: own for name, own in points.items() if any(pairs.size for pairs in own.values())}
    if not points:
        return None
    coloured = shown(entries, reference)
    labels = [label for label in strategies_of(entries) if any(own[label].size for own in points.values())]
    # What strategies without a prediction would have is free for those that the curves have in grey.
    free = (index for index in count() if index >= len(coloured) or coloured[index] not in labels)
    dots = {"linestyle": "none", "ms": 4.5, "mec": "white", "mew": 0.4}
    looks = {
        label: {**line_look(coloured.index(label) if label in coloured else next(free)), **dots} for label in labels
    }
    values = np.concatenate([pairs.ravel() for own in points.values() for pairs in own.values()])
    ends = np.array([values.min() / 1.4, values.max() * 1.4])
    width = PAGE if len(points) > 1 or len(looks) > MOST else 4.4
    figure = Figure(
        figsize=(width, (3.15 if len(points) > 1 else 3.5) + legend_height(labels, width, 1.0)),
        layout=layout(square=True),
    )
    for number, (name, own) in enumerate(points.items()):
        axes = figure.add_subplot(1, len(points), number + 1)
        axes.fill_between(ends, 0.9 * ends, 1.1 * ends, color="0.85", linewidth=0, zorder=0)
        axes.plot(ends, ends, color="0.45", linewidth=0.9, zorder=1)
        for label, look in looks.items():
            axes.plot(*own[label].T, **look)
        axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends, aspect="equal")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if ends[1] < 300.0 * ends[0] else (1.0,)))
            axis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("residual error predicted", fontsize=LABEL)
        axes.set_ylabel(_ERRORS[name], fontsize=LABEL)
        plain(axes, SMALL)
    legend_below(figure, [Line2D([], [], **look) for look in looks.values()], labels, 1.0)
    return figure
