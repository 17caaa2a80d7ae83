"""Outages in runs: Flower's rounds in virtual time, with the sites told to the strategy and without.

Twelve clients at four sites, which are down in 10 % of the time, for 5 s or 30 s each, while rounds last 2 to 6 s;
a client is away in 30 % of the rounds besides. Each site has three shards, which stay there, so that all holders of a
shard go down together. Nothing but the sites is told: how often they are down, and how often clients miss, is learnt.
Shard updates are known vectors, from which the coverage of every round can be read off the model: its mean over the
rounds is one if the decoder is unbiased.

    .venv/bin/python experiments/neighbours/outages_learnt.py --out experiments/neighbours/results
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np
from fedgc.clients import ShardUpdate, gradient_coded
from fedgc.strategies import GradientCoding
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, MetricRecord
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fedgc.assignment import AssignmentConstraints
from fedgc.coherence import KnownCoherence
from fedgc.fleets import build_fleet
from fedgc.report.rows import write_rows
from fedgc.report.style import legend_outside, look_of, plain
from fedgc.simulation import run_virtual

N, COHERENCE, DEADLINE = 12, 0.3, 6.0
SITE = np.repeat(np.arange(4), 3)
AT_SITE = AssignmentConstraints(residency=[(range(k, k + 3), range(k, k + 3)) for k in range(0, N, 3)])
#: The first rounds, in which clients and sites are hardly known.
BEGINNING = 30
COLUMNS = ("outage_seconds", "sites", "bias", "bias_standard_error", "error_predicted", "error", "error_of_mean")


class Run(NamedTuple):
    """Coverage of every shard, (rounds, N), and by round the residual error: predicted and measured."""

    coverage: NDArray[np.float64]
    predicted: NDArray[np.float64]
    error: NDArray[np.float64]


def error_of(coverage: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the residual error of coverages, (..., N)."""
    off = coverage - 1.0
    energy = COHERENCE * off.sum(axis=-1) ** 2 + (1.0 - COHERENCE) * (off**2).sum(axis=-1)
    return np.asarray(energy / (COHERENCE * N**2 + (1.0 - COHERENCE) * N))


def play(*, told: bool, outage_seconds: float, seed: int, rounds: int) -> Run:
    """Run the strategy on the fleet of a seed."""
    fleet = build_fleet(
        {
            "model": "log-normal",
            "clients": N,
            "median": 1.0,
            "sigma": 0.1,
            "dropout": 0.3,
            "site": SITE.tolist(),
            "outage_fraction": 0.1,
            "outage_seconds": outage_seconds,
        },
        seed=seed,
    )
    client, server, models = ClientApp(), ServerApp(), []

    @client.train()
    @gradient_coded(num_shards=N)
    def train(shard_id: int, arrays: ArrayRecord, config: ConfigRecord) -> ShardUpdate:
        delta = np.zeros(N + 1)
        delta[shard_id], delta[N] = np.sqrt(1.0 - COHERENCE), np.sqrt(COHERENCE)
        return ShardUpdate(1, delta={"w": delta})

    strategy = GradientCoding(
        FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1),
        num_shards=N,
        deadline=DEADLINE,
        load=3,
        coherence=KnownCoherence(energy=1.0, overlap=COHERENCE),
        shard_examples=[1] * N,
        constraints=AT_SITE,
        failure_domains=SITE if told else None,
        reassignment_gain=1.0,
    )

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
            models.append(arrays["w"].numpy().copy())
            return MetricRecord({"round": server_round})

        initial = ArrayRecord({"w": Array(np.zeros(N + 1))})
        strategy.start(grid, initial, num_rounds=rounds, timeout=1e9, evaluate_fn=evaluate)

    run_virtual(server, client, fleet, num_shards=N)
    coverage = N * np.diff(np.array(models), axis=0)[:, :N] / np.sqrt(1.0 - COHERENCE)
    predicted = np.array([report.predicted_residual_error for report in strategy.history], dtype=np.float64)
    return Run(coverage, predicted, error_of(coverage))


def row_of(outage_seconds: float, sites: str, runs: list[Run]) -> dict[str, object]:
    """Return what the rounds after the beginning had: the mean bias over shards, rounds and runs among it."""
    coverage = np.array([run.coverage[BEGINNING:] for run in runs])
    by_run = coverage.mean(axis=(1, 2)) - 1.0
    deviation = float(by_run.std(ddof=1) / np.sqrt(len(runs))) if len(runs) > 1 else float("nan")
    predicted = float(np.mean([run.predicted[BEGINNING:] for run in runs]))
    error = float(np.mean([run.error[BEGINNING:] for run in runs]))
    of_mean = float(error_of(coverage.mean(axis=(0, 1))))
    row = outage_seconds, sites, float(by_run.mean()), deviation, predicted, error, of_mean
    return dict(zip(COLUMNS, row, strict=True))


def draw(found: dict[tuple[float, str], list[Run]]) -> Figure:
    """Draw the mean of all rounds so far: bias, and residual error predicted and measured."""
    figure = Figure(figsize=(9.0, 4.2), layout="constrained")
    panels = figure.subplots(1, 2)
    for number, ((outage_seconds, sites), runs) in enumerate(found.items()):
        look = {**look_of(number), "markevery": 25}
        label = f"outages of {outage_seconds:g} s, sites {sites}"
        coverage = np.array([run.coverage[BEGINNING:] for run in runs]).mean(axis=(0, 2))
        rounds = np.arange(1, coverage.size + 1)
        panels[0].plot(BEGINNING + rounds, np.cumsum(coverage) / rounds - 1.0, label=label, **look)
        for kind, style in (("error", "-"), ("predicted", ":")):
            mean = np.mean([getattr(run, kind)[BEGINNING:] for run in runs], axis=0)
            panels[1].plot(BEGINNING + rounds, np.cumsum(mean) / rounds, **{**look, "linestyle": style})
    titles = ("mean bias of the rounds so far", "error, measured and (dots) predicted")
    for axes, title in zip(panels, titles, strict=True):
        axes.set_title(title)
        axes.set_xlabel("round")
        axes.axhline(0.0, color="0.6", linewidth=0.8)
        plain(axes)
    legend_outside(figure, *panels[0].get_legend_handles_labels())
    return figure


def main() -> None:
    """Run all and write table and figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--quick", action="store_true", help="one seed, 60 rounds, outages of 5 s only")
    args = parser.parse_args()
    logging.getLogger("flwr").setLevel(logging.ERROR)
    seeds, rounds = (1, 60) if args.quick else (args.seeds, args.rounds)
    found = {
        (seconds, "known" if told else "not known"): [
            play(told=told, outage_seconds=seconds, seed=seed, rounds=rounds) for seed in range(seeds)
        ]
        for seconds in ((5.0,) if args.quick else (5.0, 30.0))
        for told in (True, False)
    }
    args.out.mkdir(parents=True, exist_ok=True)
    write_rows(args.out / "outages_learnt.csv", [row_of(*key, runs) for key, runs in found.items()])
    draw(found).savefig(args.out / "outages_learnt.png", dpi=150)


if __name__ == "__main__":
    main()
