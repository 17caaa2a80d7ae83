"""Do the same jobs in every runtime, in turn, and write how long a round takes and how long the command.

    .venv/bin/python experiments/benchmarks/runtimes/compare.py --out experiments/benchmarks/results [--jobs J1 J2 J3]

Each contestant is a file beside this one and does each job in a process of its own, one after another and all of them
again for every repeat, so that what else the machine does meets all of them alike; ratios are medians of the ratios of
single repeats. `processor` is milliseconds of processor time a round, of contestants that are one process. One thread
for each process, unless OMP_NUM_THREADS says otherwise. A contestant whose package is not installed is left out
(`pip install -e ".[peers]"`). The command fails if final losses differ by more than 1e-3.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from statistics import median

import matplotlib.pyplot as plt
from jobs import JOBS
from matplotlib.figure import Figure

from fedgc.experiment.figure import COLOURS
from fedgc.report.style import layout, plain

HERE = Path(__file__).parent
#: Contestants in the order of tables: file, name, package that it needs.
CONTESTANTS = {
    "flower_simulation": ("Flower's Simulation Runtime, 2 actors", "ray"),
    "pfl_simulated": ("pfl-research, one process", "pfl"),
    "pfl_two_processes": ("pfl-research, two processes", "pfl"),
    "fedgc_coded": ("fedgc's embedded runtime, GradientCoding", "fedgc"),
    "fedgc_fedavg": ("fedgc's embedded runtime, FedAvg", "fedgc"),
    "plain_loop": ("plain loop", "torch"),
    "lean_loop": ("plain loop, lean", "torch"),
    "fedgc_replay": ("fedgc's replay", "fedgc"),
    "vectorised": ("vectorised torch", "torch"),
}
#: Contestants whose processor time is not that of one process.
SEVERAL_PROCESSES = ("flower_simulation", "pfl_two_processes")
#: The contestant that ratios are relative to.
REFERENCE = "fedgc_fedavg"
#: Largest difference of final losses between contestants that do the same work.
SAME = 1e-3

Row = dict[str, str | float | int]


def measure(contestant: str, job: str, options: list[str]) -> dict[str, float]:
    """Return the milliseconds of a round, the seconds of the whole command and the last loss."""
    environment = {"OMP_NUM_THREADS": "1", **os.environ, "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    command = [sys.executable, "-W", "ignore", str(HERE / f"{contestant}.py"), job, *options]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{contestant} failed on {job}:\n{done.stdout}{done.stderr}")
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return {**found, "seconds": seconds}


def compare(jobs: list[str], contestants: list[str], repeats: int, options: list[str]) -> list[Row]:
    """Return a row for each job and contestant, medians over the repeats."""
    found: dict[tuple[str, str], list[dict[str, float]]] = defaultdict(list)
    for repeat in range(repeats):
        for job in jobs:
            for contestant in contestants:
                one = measure(contestant, job, options)
                found[job, contestant].append(one)
                print(f"{repeat + 1}/{repeats} {job} {contestant}: {one}", flush=True)
    rows: list[Row] = []
    for (job, contestant), own in found.items():
        reference = found.get((job, REFERENCE), own)
        row: Row = {"job": job, "contestant": contestant, "repeats": repeats}
        for what in ("milliseconds", "processor", "seconds"):
            if what == "processor" and contestant in SEVERAL_PROCESSES:
                row.update({what: "", f"{what}_ratio": ""})
                continue
            row[what] = round(median(one[what] for one in own), 3)
            ratios = [one[what] / other[what] for one, other in zip(own, reference, strict=True)]
            row[f"{what}_ratio"] = round(median(ratios), 3)
        rows.append({**row, "loss": own[0]["loss"]})
    return rows


def check_losses(rows: list[Row]) -> None:
    """End with an error if contestants have not done the same work."""
    for job in {row["job"] for row in rows}:
        losses = {row["contestant"]: float(row["loss"]) for row in rows if row["job"] == job}
        if not max(losses.values()) - min(losses.values()) <= SAME:
            raise SystemExit(f"{job}: final losses must agree to {SAME}; got {losses}")


def draw(rows: list[Row]) -> Figure:
    """Return the milliseconds per round, job by job; what is fedgc's in another colour."""
    jobs = list(dict.fromkeys(str(row["job"]) for row in rows))
    figure, axes = plt.subplots(
        1, len(jobs), figsize=(4.0 * len(jobs) + 2.0, 3.4), squeeze=False, sharey=True, layout=layout()
    )
    for axis, job in zip(axes[0], jobs, strict=True):
        own = [row for row in rows if row["job"] == job][::-1]
        names = [CONTESTANTS[str(row["contestant"])][0] for row in own]
        colours = [COLOURS[int(str(row["contestant"]).startswith("fedgc"))] for row in own]
        bars = axis.barh(names, [float(row["milliseconds"]) for row in own], color=colours)
        axis.bar_label(bars, fmt="%.3g", padding=2, fontsize=8)
        axis.set_xscale("log")
        axis.margins(x=0.15)
        axis.set(title=job, xlabel="milliseconds a round")
        plain(axis)
    return figure


def main() -> None:
    """Measure, check, and write a table and a figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS))
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rounds", type=int, help="as many as each job has unless told")
    parser.add_argument("--quick", action="store_true", help="12 clients, 4 rounds, once")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    there = []
    for contestant in args.only:
        name, package = CONTESTANTS[contestant]
        if importlib.util.find_spec(package) is None:
            print(f"{name} is left out: {package} is not installed")
        else:
            there.append(contestant)
    options = ["--clients", "12", "--rounds", "4"] if args.quick else []
    options += ["--rounds", str(args.rounds)] if args.rounds else []
    rows = compare(args.jobs, there, 1 if args.quick else args.repeats, options)
    check_losses(rows)
    args.out.mkdir(parents=True, exist_ok=True)
    with (args.out / "runtimes.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    draw(rows).savefig(args.out / "runtimes.png", dpi=150)


if __name__ == "__main__":
    main()
