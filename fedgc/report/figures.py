"""The figures of a report beside its curves: the way to the target, and calibration."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator, StrMethodFormatter

from fedgc.experiment.figure import COLOURS
from fedgc.experiment.target import Target
from fedgc.report.conditions import by_condition, strategies_of
from fedgc.report.ratios import pairs_of
from fedgc.report.style import layout, legend_outside, legend_width, look_of, plain, wrapped
from fedgc.report.tables import Entry, best_of, never_text
from fedgc.report.unit import AXIS, Unit

#: Ratio of the largest to the smallest value beyond which an axis is logarithmic.
_WIDE = 8.0

#: Inches beside a panel for the words of strategies that do not reach the target.
_WORDS = 1.0

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
    names = [wrapped(label, 40) for label in strategies]
    columns = min(len(groups), 2 if len(groups) == 4 else 3)
    rows = -(-len(groups) // columns)
    lines = sum(1.0 if "\n" not in name else 1.6 for name in names)
    label_width = 0.075 * max(len(line) for name in names for line in name.splitlines())
    words = 0.0 if all(np.isfinite(entry.mean) for entry in entries) else _WORDS
    size = (label_width + (words + (3.0 if columns > 1 else 4.4)) * columns, rows * (0.27 * lines + 0.9))
    figure = Figure(figsize=size, layout=layout())
    for number, (title, group) in enumerate(groups.items()):
        axes = figure.add_subplot(rows, columns, number + 1)
        _way_panel(axes, group, strategies)
        axes.set_title(title, fontsize=10, parse_math=False)
        axes.set_xlabel(f"{AXIS[unit]} to {target.text}", fontsize=9 if columns > 1 else 10)
        axes.set_yticks(range(len(names)), names, fontsize=9, parse_math=False)
        axes.tick_params(axis="y", labelleft=number % columns == 0, length=0)
        axes.set_ylim(len(names) - 0.5, -0.5)
    return figure


def _way_panel(axes: Axes, group: Sequence[Entry], strategies: Sequence[str]) -> None:
    best = best_of(group)
    plain(axes)
    low, high = _extent(group)
    if 0.0 < _WIDE * low < high < np.inf:
        axes.set_xscale("log")
        axes.set_xlim(low / 1.15, high * 1.15)
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
    elif high > 0.0:
        axes.set_xlim(0.0, 1.08 * high)
    else:
        axes.set_xticks([])
    for entry in group:
        at = strategies.index(entry.strategy)
        seeds = entry.reached[np.isfinite(entry.reached)]
        axes.plot(seeds, np.full(seeds.size, at), "o", color="0.6", ms=2.5, zorder=2)
        if not np.isfinite(entry.mean):
            # Beside the panel, where no seed that got there is hidden by it.
            axes.text(
                1.01, at, never_text(entry.reached), transform=axes.get_yaxis_transform(), ha="left", va="center",
                fontsize=7, color="0.35",
            )  # fmt: skip
            continue
        colour, marker = (COLOURS[1], "D") if entry is best else (COLOURS[5], "o")
        error = None if np.isnan(entry.half_width) else [[min(entry.half_width, entry.mean)], [entry.half_width]]
        axes.errorbar(entry.mean, at, xerr=error, fmt=marker, color=colour, ms=6, capsize=2.5, lw=1.3, zorder=3)


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


def calibration_figure(entries: Sequence[Entry]) -> Figure | None:
    """Draw residual errors observed and measured against the one predicted: a point is the mean over a run's rounds.

    None if no strategy predicts any. The band is a tenth around equality.
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
    labels = [label for label in strategies_of(entries) if any(own[label].size for own in points.values())]
    # As in the other figures, where there may be more strategies.
    looks = {
        label: {
            **look_of(strategies_of(entries).index(label)),
            "linestyle": "none",
            "ms": 6,
            "mec": "white",
            "mew": 0.5,
        }
        for label in labels
    }
    values = np.concatenate([pairs.ravel() for own in points.values() for pairs in own.values()])
    ends = np.array([values.min() / 1.4, values.max() * 1.4])
    below = legend_width(labels) == 0.0
    height = 4.0 + (0.26 * (1 + len(labels) // 2) if below else 0.0)
    width = max(3.9 * len(points) + 0.3 + legend_width(labels), 6.5 if below and len(labels) > 1 else 0.0)
    figure = Figure(
        figsize=(width, max(height, 0.0 if below else 0.5 + 0.22 * len(labels))), layout=layout(square=True)
    )
    for number, (name, own) in enumerate(points.items()):
        axes = figure.add_subplot(1, len(points), number + 1)
        axes.fill_between(ends, 0.9 * ends, 1.1 * ends, color="0.85", linewidth=0, zorder=0)
        axes.plot(ends, ends, color="0.45", linewidth=0.9, zorder=1)
        for label in labels:
            axes.plot(*own[label].T, **looks[label])
        axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends, aspect="equal")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if ends[1] < 300.0 * ends[0] else (1.0,)))
            axis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("residual error predicted", fontsize=10)
        axes.set_ylabel(_ERRORS[name], fontsize=10)
        plain(axes)
    legend_outside(figure, [Line2D([], [], **looks[label]) for label in labels], labels)
    return figure
