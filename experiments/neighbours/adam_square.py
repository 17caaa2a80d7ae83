"""What if the server knew the square of the exact gradient? FedAdam's rounds with it, and with estimates of it.

The setting of ``adam.toml`` without messages, in which the exact gradient can be had: pairs of clients on the base
paper's fleet at tau = 1.5, weights 1 / P, the second moment from the exact square ("exact"), from the decoded one
("decoded"), from that over one plus the residual error ("scaled"), from that less the estimated variance, cut off at
zero in each round ("subtracted") or after the mean over rounds ("subtracted, cut off late"). Rounds to a training loss
of 0.1, mean over five seeds, with the best step of one grid; nothing where one seed does not get there in 150 rounds.

    .venv/bin/python experiments/neighbours/adam_square.py --out experiments/neighbours/results
"""

from __future__ import annotations

import argparse
import csv
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedgc.experiment.files import write_whole
from fedgc.fleets import build_fleet
from fedgc.tasks import DigitsRegressionTask

Vector = NDArray[np.float64]

CLIENTS, BLOCKS, TAU, LONGEST, TARGET = 20, 10, 1.5, 150, 0.1
STEPS = (0.1, 0.2, 0.4, 0.8)
LEARNING_RATE, BETA1, BETA2 = 10.0, 0.9, 0.99
METHODS = ("nobody straggles", "decoded", "scaled", "subtracted", "subtracted, cut off late", "exact")


def square_of(method: str, decoded: Vector, updates: Vector, came: NDArray[np.bool_], chance: Vector) -> Vector:
    """Return what goes into the second moment."""
    if method == "exact":
        return updates.sum(axis=0) ** 2
    if method == "scaled":
        return decoded**2 / (1.0 + float(np.mean(1.0 / chance - 1.0)))
    if method.startswith("subtracted"):
        left = decoded**2 - np.tensordot(came * (1.0 / chance) * (1.0 / chance - 1.0), updates**2, axes=1)
        return np.maximum(left, 0.0) if method == "subtracted" else left
    return decoded**2


def rounds_to_target(
    task: DigitsRegressionTask, chance: Vector, method: str, step: float, adaptivity: float, *, seed: int
) -> float:
    """Return the rounds until the loss is at the target, infinite if that takes too long."""
    rng = np.random.default_rng([seed, 8])
    weights = task.initial_weights().astype(np.float64)
    moment, square = np.zeros_like(weights), np.zeros_like(weights)
    blocks = (np.arange(CLIENTS) % BLOCKS == np.arange(BLOCKS)[:, None]).astype(np.float32)
    if method == "nobody straggles":
        chance = np.ones(BLOCKS)
    for number in range(LONGEST):
        loss, gradients = task.weighted_gradients(weights.astype(np.float32), blocks)
        if loss <= TARGET:
            return float(number)
        if not np.isfinite(loss):
            break
        updates, came = -LEARNING_RATE * np.asarray(gradients, dtype=np.float64), rng.random(BLOCKS) < chance
        decoded = np.tensordot(came / chance, updates, axes=1)
        moment = BETA1 * moment + (1.0 - BETA1) * decoded
        square = BETA2 * square + (1.0 - BETA2) * square_of(method, decoded, updates, came, chance)
        # As in Flower, whose first round is the first and yet counts as the second here.
        now = step * np.sqrt(1.0 - BETA2 ** (number + 2.0)) / (1.0 - BETA1 ** (number + 2.0))
        weights = weights + now * moment / (np.sqrt(np.maximum(square, 0.0)) + adaptivity)
    return np.inf


def main() -> None:
    """Run all, print a table and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    found: dict[tuple[float, str], list[list[float]]] = {}
    for seed in range(1, 6):
        task = DigitsRegressionTask(shards=CLIENTS, partition="sorted", seed=seed)
        straggle = np.asarray(build_fleet({"preset": "paper", "clients": CLIENTS}, seed=seed).straggle_prob(TAU, 1))
        chance = 1.0 - straggle[:BLOCKS] * straggle[BLOCKS:]
        for adaptivity in (1e-3, 3e-2):
            for method in METHODS:
                rounds = [rounds_to_target(task, chance, method, step, adaptivity, seed=seed) for step in STEPS]
                found.setdefault((adaptivity, method), []).append(rounds)
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["adaptivity", "second_moment", "best_step", "rounds"])
    for (adaptivity, method), by_seed in found.items():
        mean = np.mean(by_seed, axis=0)
        best = int(mean.argmin())
        row = [
            adaptivity,
            method,
            *([STEPS[best], round(float(mean[best]), 1)] if np.isfinite(mean[best]) else ["", ""]),
        ]
        writer.writerow(row)
        print(*row, sep=", ", flush=True)
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
        write_whole(args.out / "adam-square.csv", table.getvalue().encode())


if __name__ == "__main__":
    main()
