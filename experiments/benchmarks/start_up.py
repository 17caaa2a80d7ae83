"""How long a command takes to say something: `fedgc --help`, and `fedgc run` to the end of its first round.

    .venv/bin/python experiments/benchmarks/start_up.py --out experiments/benchmarks/results [--repeats 7]

The second plays one round of `experiments/smallest.toml`, from the command to its end. Beside them what Python
takes to import torch and Flower, below which a run that trains with them cannot be. In turn, medians.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import median

HERE = Path(__file__).parent
COMMAND = [sys.executable, "-m", "fedgc"]


def seconds_of(arguments: list[str]) -> float:
    """Return the seconds from the command to its end."""
    start = time.perf_counter()
    subprocess.run(arguments, check=True, capture_output=True)
    return time.perf_counter() - start


def seconds_to_first_round() -> float:
    """Return the seconds until one round of an experiment has been played, from the command to its end."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["--set", "rounds=1", "--set", "seeds=[1]", "--out", f"{folder}/out"]
        return seconds_of([*COMMAND, "run", str(HERE.parent / "smallest.toml"), *options])


def main() -> None:
    """Measure and write a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="once")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    found: dict[str, list[float]] = defaultdict(list)
    for _ in range(1 if args.quick else args.repeats):
        found["fedgc --help"].append(seconds_of([*COMMAND, "--help"]))
        found["fedgc run, one round"].append(seconds_to_first_round())
        found["import torch, flwr.app"].append(seconds_of([sys.executable, "-c", "import torch, flwr.app"]))
    args.out.mkdir(parents=True, exist_ok=True)
    with (args.out / "start_up.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["command", "seconds"])
        writer.writerows((name, round(median(took), 3)) for name, took in found.items())
    for name, took in found.items():
        print(f"{name}: {median(took):.2f} s")


if __name__ == "__main__":
    main()
