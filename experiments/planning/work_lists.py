"""Do work lists cost nothing, and what do they gain? One holder per shard against several, in the virtual-time runtime.

One holder means shares by speed and partial work, the best that can be done without redundancy. Each number of holders
takes the deadline that suits it best, and each choice its best step; with and without memory of the last updates.

    .venv/bin/python experiments/planning/work_lists.py --out results/work_lists.csv [--preset uneven]
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import numpy as np
from check_plan import Digits, run_choice, write_table
from fedgc.strategies import RoundReport

from fedgc.deadline import cover_time
from fedgc.fleets import build_fleet, presets
from fedgc.planning import Choice

HOLDERS = (1, 2, 3, 5)
#: Deadlines, relative to the one by which the fleet can do every shard once.
SHARES = (0.6, 0.8, 1.0, 1.25, 1.6)


def work_list_choice(holders: int, deadline: float) -> Choice:
    """Return the choice of work lists with so many holders."""
    return Choice(holders, "work-list", "work-lists", "optimal-unbiased", deadline, deadline, 0.0, 0.0, 1.0, 0)


def time_to_target(task: Digits, run: list[RoundReport], target: float, memory: bool) -> float:
    """Return the seconds until the target, with the best step."""
    coverage = np.array([report.coverage for report in run])
    seconds = float(np.mean([report.seconds for report in run]))
    return task.rounds_to(coverage, target, 600, memory=memory) * seconds


def main() -> None:
    """Race numbers of holders on fleets and print the ratio to one holder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", action="append")
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--shards", type=int, default=80)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    logging.getLogger("flwr").setLevel(logging.ERROR)
    task = Digits(args.shards)
    target = task.loss_of_descent(100)
    rows: list[dict[str, object]] = []
    for preset in args.preset or presets():
        best: dict[tuple[bool, int], list[float]] = {
            (memory, holders): [] for memory in (False, True) for holders in HOLDERS
        }
        for seed in range(1, args.seeds + 1):
            fleet = build_fleet({"preset": preset, "clients": args.clients}, seed=seed)
            cover = cover_time(fleet, args.shards)
            for holders in HOLDERS:
                runs = [
                    run_choice(fleet, work_list_choice(holders, share * cover), args.shards, args.rounds)
                    for share in SHARES
                ]
                for memory in (False, True):
                    best[memory, holders].append(min(time_to_target(task, run, target, memory) for run in runs))
        for (memory, holders), times in best.items():
            ratios = np.array(best[memory, 1]) / np.array(times)
            rows.append(
                {
                    "preset": preset,
                    "memory": memory,
                    "holders": holders,
                    "time_to_target": float(np.mean(times)),
                    "times_as_soon_as_one": float(ratios.mean()),
                    "lowest": float(ratios.min()),
                }
            )
            print(rows[-1], flush=True)
    if args.out is not None:
        write_table(args.out, rows)


if __name__ == "__main__":
    main()
