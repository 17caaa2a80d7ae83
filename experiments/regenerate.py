"""Run the experiments anew and put their tables and figures into the results folders beside them.

Finished runs in --work are not run again. Without names all of them, which takes a day; with --smoke only the smallest
of the base paper's model and of the fleets, into --work, in a minute or two.

    .venv/bin/python experiments/regenerate.py [paper/cells ...] [--work results] [--smoke]
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

from fedgc.validation import did_you_mean

HERE = Path(__file__).parent

#: Of runs with fewer recorded rounds than one in so many, loss curves are mostly straight lines.
_RECORDED = 5


def run(*arguments: str | Path) -> None:
    """Run a Python module or script."""
    subprocess.run([sys.executable, *map(str, arguments)], check=True)


def sweep(
    name: str, work: Path, *, by: Literal["rounds", "seconds"], relative_to: str, calibration: bool = False
) -> None:
    """Run a sweep, report on it, and keep its tables, of strategies at their best and of each seed, and its figures.

    Curves are kept where at least every fifth round is recorded, and with `calibration` the figure of residual errors
    and their predictions, if the report has one.
    """
    results = work / name.replace("/", "-")
    run("-m", "fedgc", "run", HERE / f"{name}.toml", "--out", results)
    run("-m", "fedgc", "report", results, "--by", by, "--relative-to", relative_to)
    folder, _, short = name.partition("/")
    kept = work / "kept" / folder if short == "smoke" else HERE / folder / "results"
    kept.mkdir(parents=True, exist_ok=True)
    files = ["tables.md", "table.csv", "seeds.csv", f"{by}-to-target.png"]
    if json.loads((results / "config.json").read_text())["config"].get("record_every", 1) <= _RECORDED:
        files.append(f"loss-by-{by}.png")
    if calibration and (results / "report" / "calibration.png").exists():
        files.append("calibration.png")
    for file in files:
        shutil.copyfile(results / "report" / file, kept / f"{short}-{file}")


def load(work: Path) -> None:
    """Run the sweep of computation loads, and draw it."""
    run("-m", "fedgc", "run", HERE / "paper" / "load.toml", "--out", work / "paper-load")
    run(HERE / "paper" / "draw_load.py", work / "paper-load", "--out", HERE / "paper" / "results")


def adam(work: Path) -> None:
    """Run FedAdam's sweep, draw it, and measure what knowing the exact square would be worth."""
    kept = HERE / "neighbours" / "results"
    run("-m", "fedgc", "run", HERE / "neighbours" / "adam.toml", "--out", work / "neighbours-adam")
    run(HERE / "neighbours" / "draw_adam.py", work / "neighbours-adam", "--out", kept)
    run(HERE / "neighbours" / "adam_square.py", "--out", kept)


def script(name: str, work: Path) -> None:
    """Run a script that writes its results itself."""
    run(HERE / f"{name}.py", "--out", HERE / Path(name).parent / "results")


_PAPER = partial(sweep, by="rounds", relative_to="Gradient descent")
_WALL_CLOCK = partial(sweep, by="seconds", relative_to="fedgc")

#: Every experiment by its name: folder and file. Its results are kept beside it.
EXPERIMENTS: dict[str, Callable[[Path], None]] = {
    "paper/cells": partial(_PAPER, "paper/cells", calibration=True),
    **{name: partial(_PAPER, name) for name in ("paper/copies", "paper/decoders", "paper/conv", "paper/authors")},
    "paper/lists": partial(sweep, "paper/lists", by="rounds", relative_to="fedgc, work lists, two holders"),
    "paper/load": load,
    "paper/adam": partial(script, "paper/adam"),
    "wallclock/fleets": partial(_WALL_CLOCK, "wallclock/fleets", calibration=True),
    **{
        name: partial(_WALL_CLOCK, name)
        for name in ("wallclock/coded", "wallclock/sorted", "wallclock/skew", "wallclock/alike")
    },
    **{
        name: partial(sweep, name, by="seconds", relative_to="as it comes")
        for name in ("wallclock/ablations", "wallclock/ablations_in_a_row")
    },
    "wallclock/known": partial(_WALL_CLOCK, "wallclock/known"),
    "theory/bounds": partial(script, "theory/bounds"),
    "theory/calibration": partial(script, "theory/calibration"),
    "neighbours/block_coordinates": partial(script, "neighbours/block_coordinates"),
    "neighbours/block_coordinates_training": partial(
        sweep, "neighbours/block_coordinates_training", by="seconds", relative_to="optimal split"
    ),
    "neighbours/chunk_order": partial(script, "neighbours/chunk_order"),
    "neighbours/outages": partial(script, "neighbours/outages"),
    "neighbours/outages_learnt": partial(script, "neighbours/outages_learnt"),
    "neighbours/goco": partial(script, "neighbours/goco"),
    "neighbours/bits": partial(sweep, "neighbours/bits", by="rounds", relative_to="single precision"),
    "neighbours/bit_budget": partial(script, "neighbours/bit_budget"),
    "neighbours/adam": adam,
}


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(EXPERIMENTS)}")
    parser.add_argument("--work", type=Path, default=Path("results"))
    parser.add_argument("--smoke", action="store_true")
    args = parser.parse_args()
    unknown = [name for name in args.names if name not in EXPERIMENTS]
    if unknown:
        hint = did_you_mean(unknown[0], EXPERIMENTS)
        parser.error(f"NAME must be one of {', '.join(EXPERIMENTS)}; got {unknown[0]!r}{hint}")
    if args.smoke:
        _PAPER("paper/smoke", args.work)
        _WALL_CLOCK("wallclock/smoke", args.work)
        return
    for name in args.names or EXPERIMENTS:
        EXPERIMENTS[name](args.work)


if __name__ == "__main__":
    main()
