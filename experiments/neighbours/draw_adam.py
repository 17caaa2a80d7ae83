"""Draw the rounds that FedAdam needs against its step, for each way to make the second moment.

    .venv/bin/fedgc run experiments/neighbours/adam.toml --out results/neighbours-adam
    .venv/bin/python experiments/neighbours/draw_adam.py results/neighbours-adam --out experiments/neighbours/results

Mean over the seeds with its 95 % confidence interval, where all of them reach the target; a cross at the top where one
does not. Beside them the rounds more than with the decoded square at the same step, seed by seed: their mean and
interval over the seeds that reach the target with both.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from fedgc.experiment.files import write_whole
from fedgc.report.read import Results, read_results
from fedgc.report.rows import write_rows
from fedgc.report.style import look_of
from fedgc.report.tables import mean_and_half_width

#: The label of the plain square, which the others are set beside, and that of the run without stragglers.
DECODED, NOBODY = "decoded", "nobody straggles"


def rounds_by_step(results: Results) -> list[dict[str, object]]:
    """Return a row for each second moment and step: rounds to the target, over the seeds."""
    reached: dict[tuple[str, float], list[float]] = {}
    for run in results.runs:
        key = run.strategy, float(run.choice["server_learning_rate"])
        reached.setdefault(key, []).append(run.first(results.target, "rounds"))
    rows: list[dict[str, object]] = []
    for (method, step), values in reached.items():
        known = [value for value in values if np.isfinite(value)]
        row: dict[str, object] = {"second_moment": method, "step": step}
        row |= {"seeds": len(values), "reached": len(known), "rounds": "", "half_interval": ""}
        if len(known) == len(values):
            _, half = mean_and_half_width(np.array(values))
            row |= {"rounds": round(float(np.mean(values)), 1), "half_interval": round(float(half), 1)}
        rows.append(row)
    return rows


def more_than_decoded(results: Results) -> list[dict[str, object]]:
    """Return a row for each second moment and step: how many rounds more it needs than the decoded square."""
    reached: dict[tuple[str, float], dict[int, float]] = {}
    for run in results.runs:
        key = run.strategy, float(run.choice["server_learning_rate"])
        reached.setdefault(key, {})[run.seed] = run.first(results.target, "rounds")
    rows: list[dict[str, object]] = []
    for (method, step), by_seed in reached.items():
        decoded = reached.get((DECODED, step), {})
        more = np.array([by_seed[seed] - decoded[seed] for seed in by_seed if seed in decoded])
        both = more[np.isfinite(more)]
        if method not in {DECODED, NOBODY} and both.size > 1:
            mean, half = mean_and_half_width(both)
            row: dict[str, object] = {"second_moment": method, "step": step, "seeds": both.size}
            rows.append(row | {"rounds_more": round(float(mean), 1), "half_interval": round(float(half), 1)})
    return rows


def draw(rows: Sequence[dict[str, object]], longest: int) -> bytes:
    """Return the figure as PNG."""
    figure = Figure(figsize=(8.0, 4.4), dpi=150, layout="constrained")
    axes = figure.subplots()
    methods = list(dict.fromkeys(str(row["second_moment"]) for row in rows))
    for index, method in enumerate(methods):
        own = [row for row in rows if row["second_moment"] == method]
        # Side by side, so that intervals and crosses of several methods can be told apart.
        aside = 1.03 ** (index - (len(methods) - 1) / 2)
        known = [row for row in own if row["rounds"] != ""]
        step, rounds, half = (
            np.array([float(str(row[k])) for row in known]) for k in ("step", "rounds", "half_interval")
        )
        look = look_of(index)
        axes.errorbar(step * aside, rounds, yerr=half, label=method, capsize=2.0, **look)
        never = [float(str(row["step"])) * aside for row in own if row["rounds"] == ""]
        axes.plot(never, [longest] * len(never), "x", color=look["color"], clip_on=False)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(sorted({float(str(row["step"])) for row in rows}), minor=False)
    axes.set_yticks([20, 30, 40, 60, 80, longest], minor=False)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("server learning rate (points of one rate side by side)")
    axes.set_ylabel("rounds to the target (x: not in every seed)")
    axes.grid(visible=True, color="0.92")
    figure.legend(loc="outside right upper", frameon=False, title="second moment")
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return png.getvalue()


def main() -> None:
    """Read a folder of results, and write adam.csv, adam-differences.csv and adam.png."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    results = read_results(args.results)
    rows = rounds_by_step(results)
    write_rows(args.out / "adam.csv", rows)
    write_rows(args.out / "adam-differences.csv", more_than_decoded(results))
    write_whole(args.out / "adam.png", draw(rows, int(results.config["rounds"])))


if __name__ == "__main__":
    main()
