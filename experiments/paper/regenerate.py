"""Run the experiments of this folder anew and put their tables and figures into its results.

Finished runs in --work are not run again. With --smoke the smallest of them only, into --work, in well under a minute.

    .venv/bin/python experiments/paper/regenerate.py [--only cells] [--work results] [--smoke]
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
#: What of a report is kept here.
KEPT = ("tables.md", "rounds-to-target.png", "loss-by-rounds.png")
SWEEPS = ("cells", "copies", "decoders", "authors")


def fedgc(*arguments: str | Path) -> None:
    """Run the command line."""
    subprocess.run([sys.executable, "-m", "fedgc", *map(str, arguments)], check=True)


def sweep(name: str, work: Path, out: Path) -> None:
    """Run a sweep, report on it, and keep what is kept of the report."""
    results = work / f"paper-{name}"
    fedgc("run", HERE / f"{name}.toml", "--out", results)
    fedgc("report", results, "--by", "rounds", "--relative-to", "Gradient descent")
    out.mkdir(parents=True, exist_ok=True)
    for file in KEPT:
        shutil.copyfile(results / "report" / file, out / f"{name}-{file}")


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=[*SWEEPS, "load", "adam"])
    parser.add_argument("--work", type=Path, default=Path("results"))
    parser.add_argument("--smoke", action="store_true")
    args = parser.parse_args()
    if args.smoke:
        sweep("smoke", args.work, args.work / "paper-smoke-kept")
        return
    wanted = args.only or [*SWEEPS, "load", "adam"]
    for name in SWEEPS:
        if name in wanted:
            sweep(name, args.work, HERE / "results")
    if "load" in wanted:
        fedgc("run", HERE / "load.toml", "--out", args.work / "paper-load")
        command = [HERE / "draw_load.py", args.work / "paper-load", "--out", HERE / "results"]
        subprocess.run([sys.executable, *map(str, command)], check=True)
    if "adam" in wanted:
        subprocess.run([sys.executable, str(HERE / "adam.py"), "--out", str(HERE / "results")], check=True)


if __name__ == "__main__":
    main()
