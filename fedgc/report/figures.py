"""The figures of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, PercentFormatter, StrMethodFormatter

from fedgc.experiment.figure import COLOURS, STYLES
from fedgc.report.tables import Entry, best_of

#: Panels side by side.
_COLUMNS = 2


def condition_text(condition: Mapping[str, str]) -> str:
    """Return a condition as a title: the last part of each key, and its value.

    Examples
    --------
    >>> condition_text({"fleet.preset": "phones", "task.alpha": "0.3"})
    'preset phones, alpha 0.3'
    """
    return ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in condition.items())


def by_condition(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """Return the entries of each condition, by its title."""
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(condition_text(entry.condition), []).append(entry)
    return groups


def accuracy_figure(entries: Sequence[Entry], target: float) -> Figure:
    """Draw accuracy against virtual time, a panel for each condition and a line for each strategy.

    The line is the mean over the seeds of the accuracy that the last finished round had reached, the band their range.
    """
    groups = by_condition(entries)
    rows = -(-len(groups) // _COLUMNS)
    columns = min(_COLUMNS, len(groups))
    figure = Figure(figsize=(5.2 * columns, 3.4 * rows + 0.6), layout="constrained")
    strategies = list(dict.fromkeys(entry.strategy for entry in entries))
    for number, (title, group) in enumerate(groups.items()):
        axes = figure.add_subplot(rows, columns, number + 1)
        _accuracy_panel(axes, group, strategies, target)
        axes.set_title(title, fontsize=10, parse_math=False)
        axes.set_xlabel("virtual seconds", fontsize=9)
        if number % columns == 0:
            axes.set_ylabel("test accuracy", fontsize=9)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    legend = figure.legend(
        handles, labels, loc="outside lower center", ncols=min(3, len(labels)), fontsize=8, frameon=False
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def _accuracy_panel(axes: Axes, group: Sequence[Entry], strategies: Sequence[str], target: float) -> None:
    reached = [entry.mean for entry in group if np.isfinite(entry.mean)]
    ends = [max(float(run.seconds[-1]) for run in entry.runs) for entry in group]
    # A method that waits may take many times as long as all others: the axis ends where most have come to the target.
    right = min(max(ends), 2.5 * float(np.median(reached)) if reached else max(ends))
    instants = np.linspace(0.0, right, 400)
    for entry in group:
        index = strategies.index(entry.strategy)
        curves = np.array(
            [run.accuracy[np.searchsorted(run.seconds, instants, side="right") - 1] for run in entry.runs]
        )
        # A run that is over has nothing to show any more.
        curves[:, instants > min(float(run.seconds[-1]) for run in entry.runs)] = np.nan
        colour = COLOURS[index % len(COLOURS)]
        axes.plot(
            instants, curves.mean(axis=0), STYLES[index % len(STYLES)], color=colour, label=entry.strategy, lw=1.5
        )
        if len(entry.runs) > 1:
            axes.fill_between(instants, curves.min(axis=0), curves.max(axis=0), color=colour, alpha=0.12, lw=0)
    axes.axhline(target, color="0.55", linewidth=0.8, zorder=0)
    axes.set_xlim(0.0, right)
    axes.set_ylim(max(0.0, target - 0.5), 1.0)
    _plain(axes)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))


def time_figure(entries: Sequence[Entry]) -> Figure:
    """Draw seconds to the target relative to the best strategy's, a group of bars for each condition.

    Strategies that do not reach it with every seed have no bar but a cross.
    """
    groups = by_condition(entries)
    strategies = list(dict.fromkeys(entry.strategy for entry in entries))
    height = 0.22 * len(strategies) * len(groups) + 0.3 * len(groups) + 1.0
    figure = Figure(figsize=(7.2, height), layout="constrained")
    axes = figure.add_subplot()
    at, ticks, names = 0.0, [], []
    longest = 1.0
    for title, group in groups.items():
        best = best_of(group)
        ticks.append(at + (len(group) - 1) / 2.0)
        names.append(title or "all")
        for entry in group:
            index = strategies.index(entry.strategy)
            colour = COLOURS[index % len(COLOURS)]
            if best is None or not np.isfinite(entry.mean):
                axes.plot(1.0, at, "x", color=colour)
            else:
                ratio = entry.mean / best.mean
                error = None if np.isnan(entry.half_width) else entry.half_width / best.mean
                axes.barh(at, ratio, color=colour, height=0.8, xerr=error, error_kw={"lw": 0.8, "ecolor": "0.3"})
                longest = max(longest, ratio)
            at += 1.0
        at += 1.2
    for index, strategy in enumerate(strategies):
        axes.barh(np.nan, 0.0, color=COLOURS[index % len(COLOURS)], label=strategy)
    axes.axvline(1.0, color="0.4", linewidth=0.8)
    axes.set_yticks(ticks, names, parse_math=False)
    axes.invert_yaxis()
    if longest > 6.0:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}x"))
    axes.set_xlim(0.0 if longest <= 6.0 else 0.8, None)
    axes.set_xlabel("seconds to the target, relative to the soonest (cross: not reached with every seed)", fontsize=9)
    _plain(axes)
    legend = figure.legend(loc="outside lower center", ncols=min(3, len(strategies)), fontsize=8, frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def calibration_figure(entries: Sequence[Entry]) -> Figure | None:
    """Draw the mean residual error that was measured against the one that was predicted, a point for each run.

    None if no strategy predicts any.
    """
    figure = Figure(figsize=(4.8, 4.6), layout="constrained")
    axes = figure.add_subplot()
    strategies = list(dict.fromkeys(entry.strategy for entry in entries))
    values: list[float] = []
    for index, strategy in enumerate(strategies):
        pairs = [
            (float(np.mean(run.predicted[known])), float(np.mean(run.measured[known])))
            for entry in entries
            if entry.strategy == strategy
            for run in entry.runs
            if (known := np.isfinite(run.predicted) & np.isfinite(run.measured)).any()
        ]
        shown = np.array([pair for pair in pairs if min(pair) > 0.0]).reshape(-1, 2)
        if shown.size:
            axes.plot(
                *shown.T, "os^vDPX"[index % 7], color=COLOURS[index % len(COLOURS)], ms=4, label=strategy, alpha=0.8
            )
            values += shown.ravel().tolist()
    if not values:
        return None
    ends = [0.8 * min(values), 1.25 * max(values)]
    axes.plot(ends, ends, color="0.5", linewidth=0.8, zorder=0)
    axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
    axes.set_xlabel("residual error predicted (mean over a run's rounds)", fontsize=9)
    axes.set_ylabel("residual error measured", fontsize=9)
    _plain(axes)
    for text in axes.legend(fontsize=8, frameon=False).get_texts():
        text.set_parse_math(False)
    return figure


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)
