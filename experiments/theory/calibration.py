"""Residual error predicted by a plan against the one observed, on every preset fleet, with both schedules.

Every code and decoder that ``fedgc plan`` weighs up at redundancy 2, with two deadlines, is played for 1000 rounds or
more with the runtime's own draws. The standard error is the larger one of that from batch means and that which the plan
implies, since losses too rare to have occurred leave no trace in the former.

Found: of 179 choices on eight fleets 2 are beyond two standard errors, none beyond three, the worst at 2.1. In 161 the
standard error is below a third of the prediction; these are 1.3 % off in the median. The most, 56 %, are fixed weights
on phones where a few clients that hardly ever answer make up most of the error: several codes share their draws and
are off together, within two standard errors or (one) 2.1.

    .venv/bin/python experiments/theory/calibration.py --out experiments/theory/results
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fedgc.deadline import cover_time
from fedgc.fleets import build_fleet, presets
from fedgc.planning import constraints_of, plan_fleet
from fedgc.play import RoundDraws
from fedgc.report.style import legend_outside, look_of, plain

sys.path.append(str(Path(__file__).parents[1] / "planning"))
from check_plan import play
from run_choices import prepare

from fedgc.report.rows import write_rows

#: Columns of the table, of what check_plan.play tells.
COLUMNS = (
    "schedule", "code", "decoder", "redundancy", "deadline", "rounds", "error_predicted", "error",
    "error_standard_error_batches", "error_standard_error_plan", "error_z",
)  # fmt: skip
#: An observation tells something if its standard error is below this share of the prediction.
_TELLING = 1.0 / 3.0
#: In this preset clients come and go in virtual time, which takes many rounds to average over.
_LONG = "accelerators"


def observe(preset: str, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield prediction and observation of every choice of a plan for one fleet."""
    fleet = build_fleet({"preset": preset, "clients": args.clients, "leave_prob": 0.0}, seed=args.seed)
    cover = cover_time(fleet, args.shards)
    plan = plan_fleet(
        fleet,
        n_shards=args.shards,
        redundancies=args.redundancies,
        deadlines=[share * cover for share in args.deadlines],
        constraints=constraints_of(fleet),
    )
    draws = RoundDraws(fleet)
    for prepared in prepare(fleet, plan.choices, args.shards):
        row = play(prepared, draws, args.rounds)
        spread = max(row["error_standard_error_batches"], row["error_standard_error_plan"])
        telling = bool(spread < _TELLING * row["error_predicted"])
        yield {"preset": preset, **{name: row[name] for name in COLUMNS}, "standard_error": spread, "telling": telling}


def draw(rows: Sequence[dict[str, Any]]) -> Figure:
    """Draw observed against predicted, and their ratio by fleet, with two standard errors either way."""
    shown = [row for row in rows if row["telling"]]
    kinds = list(dict.fromkeys(map(kind_of, rows)))
    fleets = list(dict.fromkeys(row["preset"] for row in rows))
    figure = Figure(figsize=(11.0, 5.0), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.0, 1.4))
    looks = {
        kind: {**look_of(index), "linestyle": "none", "ms": 5, "mec": "white", "mew": 0.5}
        for index, kind in enumerate(kinds)
    }
    values = np.array([[row["error_predicted"], row["error"]] for row in shown])
    ends = np.array([values.min() / 1.5, values.max() * 1.5])
    left.plot(ends, ends, color="0.45", linewidth=0.9, zorder=0)
    right.axhline(1.0, color="0.45", linewidth=0.9, zorder=0)
    places = {}
    for number, preset in enumerate(fleets):
        # Beside each other, by kind and then in the order of the plan.
        own = [row for kind in kinds for row in shown if (row["preset"], kind_of(row)) == (preset, kind)]
        places |= {id(row): number + 0.86 * ((rank + 0.5) / len(own) - 0.5) for rank, row in enumerate(own)}
    for kind in kinds:
        own = [row for row in shown if kind_of(row) == kind]
        predicted, observed, spread = (
            np.array([row[name] for row in own]) for name in ("error_predicted", "error", "standard_error")
        )
        at = np.array([places[id(row)] for row in own])
        bars = {"elinewidth": 0.7, "capsize": 0, **looks[kind]}
        left.errorbar(predicted, observed, yerr=[np.minimum(2.0 * spread, 0.99 * observed), 2.0 * spread], **bars)
        right.errorbar(at, observed / predicted, yerr=2.0 * spread / predicted, **bars)
    left.set(xscale="log", yscale="log", xlim=ends, ylim=ends, aspect="equal")
    left.set_xlabel("residual error predicted", fontsize=10)
    left.set_ylabel("residual error observed (± 2 standard errors)", fontsize=10)
    right.set_xticks(range(len(fleets)), fleets)
    # The few whose standard error is a sixth of the prediction or more would make the others unreadable.
    right.set_ylim(0.5, 1.5)
    right.set_xlim(-0.5, len(fleets) - 0.5)
    right.set_ylabel("observed / predicted (± 2 standard errors)", fontsize=10)
    for axes in (left, right):
        plain(axes)
    right.tick_params(axis="x", length=0)
    right.grid(visible=False, axis="x")
    for edge in range(1, len(fleets)):
        right.axvline(edge - 0.5, color="0.85", linewidth=0.8, zorder=0)
    legend_outside(figure, [Line2D([], [], **looks[kind]) for kind in kinds], kinds)
    return figure


def kind_of(row: dict[str, Any]) -> str:
    """Return what a row's marker stands for."""
    return f"{row['schedule']}, {row['decoder']}"


def main() -> None:
    """Observe, and write calibration.csv and calibration.png."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", nargs="+", default=list(presets()))
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--shards", type=int, default=40, help="a multiple of the clients")
    parser.add_argument("--redundancies", type=int, nargs="+", default=[2])
    parser.add_argument("--deadlines", type=float, nargs="+", default=[1.3, 2.0], help="in times to cover all shards")
    parser.add_argument("--rounds", type=int, default=1000, help="rounds per choice, more where they are correlated")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help=f"8 clients, 300 rounds, and without {_LONG}")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.quick:
        args.clients, args.shards, args.rounds = 8, 16, 300
        args.preset = [preset for preset in args.preset if preset != _LONG]
    rows: list[dict[str, Any]] = []
    for preset in args.preset:
        own = list(observe(preset, args))
        rows += own
        print(f"{preset}: {summary(own)}", flush=True)
    print(f"all: {summary(rows)}")
    if args.out is not None:
        write_rows(
            args.out / "calibration.csv",
            [{k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows],
        )
        draw(rows).savefig(args.out / "calibration.png", dpi=110)


def summary(rows: Sequence[dict[str, Any]]) -> str:
    """Return in words how far observations are from their predictions."""
    z = np.abs([row["error_z"] for row in rows])
    ratio = [row["error"] / row["error_predicted"] - 1.0 for row in rows if row["telling"]]
    return (
        f"{len(rows)} choices, {(z > 2).sum()} beyond 2 s.e., {(z > 3).sum()} beyond 3, worst {z.max():.1f}; "
        f"{len(ratio)} tell, by {np.median(np.abs(ratio)):.1%} off in the median, {np.max(np.abs(ratio)):.1%} at most"
    )


if __name__ == "__main__":
    main()
