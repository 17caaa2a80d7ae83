"""Draw the loss after a hundred rounds against the computation load, as the base paper's Figure 4 does.

Every method with the step that is best for it at each load, mean over the seeds with its 95 % confidence interval.

    .venv/bin/fedgc run experiments/paper/load.toml --out results/paper-load
    .venv/bin/python experiments/paper/draw_load.py results/paper-load --out experiments/paper/results
"""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from fedgc.experiment.files import write_whole
from fedgc.report.read import Run, read_results
from fedgc.report.style import look_of
from fedgc.report.tables import mean_and_half_width

#: The load of methods that leave no choice: of a hundred clients all but one have a second shard.
LOAD = {"Scheme I": 1.99, "Scheme II": 1.99, "Gradient descent": 1.0}


def best_by_load(runs: Sequence[Run]) -> list[dict[str, object]]:
    """Return a row for each method, tau and load: the loss after the last round, with the step that is best."""
    losses: dict[tuple[float, str, float], dict[str, list[float]]] = {}
    for run in runs:
        load = float(run.choice.get("load", LOAD.get(run.strategy, 1.0)))
        key = float(run.settings["tau"]), run.strategy, load
        losses.setdefault(key, {}).setdefault(run.settings["task.learning_rate"], []).append(float(run.loss[-1]))
    rows: list[dict[str, object]] = []
    for (tau, strategy, load), by_step in losses.items():
        step, values = min(by_step.items(), key=lambda one: np.mean(np.nan_to_num(one[1], nan=np.inf)))
        mean, half = mean_and_half_width(np.array(values))
        rows.append(
            {
                "tau": tau,
                "strategy": strategy,
                "load": load,
                "step": float(step),
                "loss": round(mean, 5),
                "half_interval": round(half, 5),
            }
        )
    return rows


def draw(rows: Sequence[dict[str, object]]) -> bytes:
    """Return the figure as PNG, a panel for each tau."""
    figure = Figure(figsize=(10.0, 4.4), dpi=150, layout="constrained")
    taus = sorted({float(str(row["tau"])) for row in rows}, reverse=True)
    strategies = list(dict.fromkeys(str(row["strategy"]) for row in rows))
    for axes, tau in zip(figure.subplots(1, len(taus), sharey=True, squeeze=False)[0], taus, strict=True):
        for index, strategy in enumerate(strategies):
            own = sorted(
                (float(str(row["load"])), float(str(row["loss"])), float(str(row["half_interval"])))
                for row in rows
                if row["strategy"] == strategy and row["tau"] == tau
            )
            load, loss, half = np.array(own).T
            if strategy == "Gradient descent":
                axes.axhline(loss[0], color="0.4", linewidth=1.0, label=strategy)
                continue
            axes.errorbar(load, loss, yerr=half, label=strategy, capsize=2.0, **look_of(index))
        axes.set_yscale("log")
        axes.set_yticks([0.06, 0.08, 0.1, 0.15, 0.2, 0.3], minor=False)
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_title(f"τ = {tau:g}")
        axes.set_xlabel("computation load: copies of each shard")
        axes.grid(visible=True, color="0.92")
    figure.axes[0].set_ylabel("loss after 100 rounds")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False)
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return png.getvalue()


def main() -> None:
    """Read a folder of results, and write load.csv and load.png."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    rows = best_by_load(read_results(args.results).runs)
    table = io.StringIO()
    writer = csv.DictWriter(table, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    args.out.mkdir(parents=True, exist_ok=True)
    write_whole(args.out / "load.csv", table.getvalue().encode())
    write_whole(args.out / "load.png", draw(rows))


if __name__ == "__main__":
    main()
