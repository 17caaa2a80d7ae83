"""The figure of an experiment: test accuracy, or the loss if that is the target, against virtual time."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from fedgc.experiment.config import ExperimentConfig
from fedgc.experiment.row import Row

Curve = NDArray[np.float64]

# Okabe and Ito's colours, which stay apart for colour-blind readers; line styles tell them apart in grey.
COLOURS = ("#000000", "#D55E00", "#56B4E9", "#009E73", "#CC79A7", "#0072B2", "#E69F00")
STYLES = ("--", ":", "-.", "-")
#: Time is on a logarithmic scale where the longest run lasts so many times as long as the shortest.
_WIDE = 5.0


def draw_figure(config: ExperimentConfig, rows: Sequence[Row]) -> tuple[bytes, bytes]:
    """Return the figure as PNG and as SVG.

    One line per strategy: the mean over seeds of the accuracy that the last finished round had reached by each instant,
    with a band from the lowest to the highest seed; with a target loss the loss, on a logarithmic scale. Time is on one
    too where some methods take many times as long as others.
    """
    figure = Figure(figsize=(8.0, 4.8), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    strategies = list(dict.fromkeys(row.strategy for row in rows))
    target = config.target
    ends = {name: max(row.seconds for row in rows if row.strategy == name) for name in strategies}
    # A method that waits may take many times as long as the others. The axis ends where all that reach the target have
    # reached it, or all but the slowest have ended, so that the fast ones stay readable.
    hits = [
        next((row.seconds for row in rows if (row.strategy, row.seed) == run and target.reached_in(row)), 0.0)
        for run in dict.fromkeys((row.strategy, row.seed) for row in rows)
    ]
    right = min(max(ends.values()), max(1.05 * max(hits), sorted(ends.values())[-2:][0]))
    left = min((row.seconds for row in rows if row.seconds > 0.0), default=right)
    # Where some still take many times as long as others, a linear axis would leave a strip for those.
    wide = left < right and 0.0 < _WIDE * min(ends.values()) < right
    for index, name in enumerate(strategies):
        last = min(right, ends[name])
        instants = np.geomspace(left, last, 600) if wide else np.linspace(0.0, last, 600)
        curves = np.array([_value_at(rows, name, seed, instants, target.quantity) for seed in config.seeds])
        colour = COLOURS[index % len(COLOURS)]
        axes.plot(instants, curves.mean(axis=0), STYLES[index % len(STYLES)], color=colour, label=name, linewidth=1.8)
        if len(config.seeds) > 1:
            axes.fill_between(instants, curves.min(axis=0), curves.max(axis=0), color=colour, alpha=0.12, linewidth=0)
    axes.axhline(target.value, color="0.55", linewidth=0.8, zorder=0)
    axes.annotate(
        f"target\n{target}",
        (right, target.value),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        fontsize=8,
        color="0.35",
        annotation_clip=False,
    )
    if wide:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlim(left if wide else 0.0, right or 1.0)
    if target.quantity == "accuracy":
        # Untrained models tell nothing apart: the upper part of the scale is where methods differ.
        worst = min(max(row.accuracy for row in rows if row.strategy == name) for name in strategies)
        axes.set_ylim(max(0.0, min(0.5, target.value / 2, worst - 0.1)), 1.0)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    else:
        axes.set_yscale("log")
        # What has diverged would leave no room for the others: the scale ends at twice the loss of the start.
        losses = [row.loss for row in rows if math.isfinite(row.loss) and row.loss > 0.0]
        axes.set_ylim(0.9 * min([target.value, *losses]), 2.0 * max(row.loss for row in rows if row.round == 0))
    axes.set_xlabel("virtual time since the start (seconds)")
    axes.set_ylabel("test accuracy" if target.quantity == "accuracy" else "loss")
    clients, shards = config.n_clients, config.task.shards
    seeds = f", mean and range of {len(config.seeds)} seeds" if len(config.seeds) > 1 else ""
    axes.set_title(f"{config.name}: {clients} clients, {shards} shards, {config.rounds} rounds{seeds}", fontsize=10)
    legend = axes.legend(
        loc="best" if wide else "lower right" if target.quantity == "accuracy" else "upper right",
        frameon=True,
        fontsize=9,
    )
    for text in (axes.title, *legend.get_texts()):
        text.set_parse_math(False)  # a dollar sign in a name is a dollar sign
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)

    png, svg = io.BytesIO(), io.BytesIO()
    # Dates and random ids would make two runs of the same experiment differ.
    with rc_context({"svg.hashsalt": "fedgc"}):
        figure.savefig(png, format="png", metadata={"Software": None})
        figure.savefig(svg, format="svg", metadata={"Date": None})
    return png.getvalue(), svg.getvalue()


def _value_at(rows: Sequence[Row], strategy: str, seed: int, instants: Curve, name: str) -> Curve:
    own = [row for row in rows if row.strategy == strategy and row.seed == seed]
    finished = np.searchsorted([row.seconds for row in own], instants, side="right") - 1
    return np.array([getattr(row, name) for row in own], dtype=np.float64)[finished]
