"""How time grows with clients, shards and the size of the model, on log-log axes, with the exponent.

    OMP_NUM_THREADS=1 .venv/bin/python experiments/benchmarks/growth.py --out experiments/benchmarks/results [--quick]

Processor time. The exponent is the slope between the two largest sizes. `planning` is what a round adds on the server,
planning, calibration, weights and learning: the mean of rounds after the first, with whole blocks, two holders and a
fixed deadline.
"""

from __future__ import annotations

import argparse
import csv
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from bench_round import RULES, seconds_of
from bench_server import model, open_round, reply_to, timed
from matplotlib.figure import Figure

from fedgc.decoders import OptimalUnbiasedDecoder
from fedgc.report.style import layout, look_of, plain
from fedgc.round import Planning, RoundState, plan_round
from fedgc.simulation.run import _task_identity

sys.path.append(str(Path(__file__).parent / "runtimes"))
import fedgc_fedavg
import fedgc_replay
from jobs import JOBS, Job, Rounds

Measure = Callable[[int], float]
#: Rounds of a sweep over clients.
ROUNDS = 4


def _of_round(play: Callable[[Job], Rounds]) -> Measure:
    def measure(n_clients: int) -> float:
        start = time.process_time()
        play(replace(JOBS["J1"], clients=n_clients, rounds=ROUNDS))
        return (time.process_time() - start) / ROUNDS

    return measure


def planning(n_clients: int) -> float:
    """Return the seconds that a round adds on the server."""
    return float(seconds_of(n_clients, "full", RULES["fixed"], 3)[1:].sum(axis=1).mean())


def shards(n_shards: int) -> float:
    """Return the seconds of planning the first round of 100 clients."""
    state = RoundState(np.ones(n_shards))
    start = time.process_time()
    plan_round(state, range(100), Planning(load=2, decoder=OptimalUnbiasedDecoder(), deadline=RULES["fixed"]))
    return time.process_time() - start


def decoding(n_parameters: int) -> float:
    """Return the seconds in which 20 replies are folded in and the round is closed."""
    shapes = [(n_parameters // 1000, 1000)]
    with _task_identity():
        strategy, messages = open_round(model(shapes, 0), 20, 2)
        replies = [reply_to(message, model(shapes, 1)) for message in messages]
        took = timed(lambda: [strategy._run.open.take(reply) for reply in replies])
        return took + timed(lambda: strategy.aggregate_train(1, []))


#: What is measured: name, by what it grows, how, and the sizes.
SWEEPS: dict[str, tuple[str, Measure, tuple[int, ...]]] = {
    "embedded runtime, FedAvg": ("clients", _of_round(fedgc_fedavg.play), (100, 1000, 10_000)),
    "replay": ("clients", _of_round(fedgc_replay.play), (100, 1000, 10_000)),
    "planning": ("clients", planning, (100, 1000, 10_000, 100_000)),
    "planning 100 clients": ("shards", shards, (100, 1000, 10_000, 100_000)),
    "decoding 20 replies": ("parameters", decoding, (100_000, 1_000_000, 5_000_000)),
}


def draw(rows: list[dict[str, str | float]]) -> Figure:
    """Return the figure: one panel for each of clients, shards and parameters."""
    grows = list(dict.fromkeys(row["by"] for row in rows))
    figure, axes = plt.subplots(1, len(grows), figsize=(4.0 * len(grows), 3.4), layout=layout())
    for axis, by in zip(axes, grows, strict=True):
        for index, name in enumerate(dict.fromkeys(row["what"] for row in rows if row["by"] == by)):
            own = [row for row in rows if row["what"] == name]
            label = f"{name}: exponent {own[-1]['exponent']}"
            axis.loglog([row["size"] for row in own], [row["seconds"] for row in own], label=label, **look_of(index))
        axis.set(xlabel=str(by), ylabel="seconds of one processor")
        axis.legend(fontsize=7, frameon=False)
        plain(axis)
    return figure


def main() -> None:
    """Measure, and write a table and a figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the two smallest sizes")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    logging.getLogger("flwr").setLevel(logging.ERROR)
    rows: list[dict[str, str | float]] = []
    for name, (by, measure, sizes) in SWEEPS.items():
        took = [measure(size) for size in (sizes[:2] if args.quick else sizes)]
        exponent = round(float(np.log(took[-1] / took[-2]) / np.log(sizes[len(took) - 1] / sizes[len(took) - 2])), 2)
        for size, seconds in zip(sizes, took, strict=False):
            rows.append({"what": name, "by": by, "size": size, "seconds": round(seconds, 5), "exponent": exponent})
            print(*rows[-1].values(), sep="  ", flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    with (args.out / "growth.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    draw(rows).savefig(args.out / "growth.png", dpi=150)


if __name__ == "__main__":
    main()
