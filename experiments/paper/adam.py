"""Adam with stragglers: one set of decoding weights, or a second one for the second moment.

Adam divides by the root of a mean of squares, and weights above one make these squares too large. The base paper's
appendix decodes them by a second track, with weights ``w2_i = lambda^2 k / (p_i r_i (1 + lambda^2 sum_l 1 / d_l))`` for
``d = p / (1 - p)`` and r_i the sum of client i's coefficients, which trade bias against variance (lambda = 1). The same
trade for blocks is least squares: each block once if it came. Rounds to a loss of digits' regression, 100 clients,
label-sorted shards, the step tuned for each over one grid, mean over the seeds with its 95 % interval.

With Scheme I's own row sums, ``r_i = k / (d_i sum_l 1 / d_l)``, the second track is the first times a constant a little
below one, which Adam turns into a constant in the step: its two tracks are one.

    .venv/bin/python experiments/paper/adam.py --out experiments/paper/results
"""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedgc.decoders import DECODERS
from fedgc.experiment.files import write_whole
from fedgc.fleets import build_fleet
from fedgc.play import RoundDraws
from fedgc.replay import Method, MethodRounds, known_rounds
from fedgc.report.tables import mean_and_half_width
from fedgc.schemes import CODES
from fedgc.tasks import DigitsRegressionTask

Coverages = NDArray[np.float32]

STEPS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
TARGET, LONGEST = 0.068, 1200
#: Adam's constants, as everybody has them.
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


def second_track(rounds: MethodRounds, trade: float = 1.0) -> Coverages:
    """Return the coverages of the base paper's second track, (n_rounds, n_shards)."""
    code, p = rounds.calibrated.code, rounds.straggle_prob
    row_sum = np.asarray(code.sparse_matrix.sum(axis=1)).ravel()
    inverse = ((1.0 - p) / p).sum()
    weight = trade**2 * code.n_clients / (p * row_sum * (1.0 + trade**2 * inverse))
    return np.array((rounds.played.arrived * weight) @ code.sparse_matrix.toarray(), dtype=np.float32)


def rounds_to_target(task: DigitsRegressionTask, first: Coverages, second: Coverages, step: float) -> float:
    """Return the rounds until the loss is at the target, infinite if that takes too long, NaN if the loss diverges."""
    weights = task.initial_weights()
    moment, square = np.zeros_like(weights), np.zeros_like(weights)
    updates = 0
    for number, both in enumerate(np.stack([first, second], axis=1)):
        loss, (gradient, other) = task.weighted_gradients(weights, both)
        if loss <= TARGET:
            return float(number)
        if not np.isfinite(loss):
            return np.nan
        if not both.any():  # nothing came
            continue
        updates += 1
        moment = BETA1 * moment + (1.0 - BETA1) * gradient
        square = BETA2 * square + (1.0 - BETA2) * other**2
        scale = np.sqrt(square / (1.0 - BETA2**updates)) + EPSILON
        weights = weights - np.float32(step) * (moment / np.float32(1.0 - BETA1**updates)) / scale.astype(np.float32)
    return np.inf


def tracks(tau: float, clients: int, seed: int) -> dict[str, Callable[[], tuple[Coverages, Coverages]]]:
    """Return the pairs of coverages by name, the first for the first moment."""
    draws = RoundDraws(build_fleet({"preset": "paper", "clients": clients}, seed=seed))
    sizes = np.ones(clients)

    def rounds_of(code: str, decoder: str) -> MethodRounds:
        method = Method(CODES[code], DECODERS[decoder](), deadline=tau, coherence=0.0)
        return known_rounds(method, draws, sizes, LONGEST, seed=seed)

    def covered(code: str, decoder: str) -> Coverages:
        return rounds_of(code, decoder).played.coverage.astype(np.float32)

    full = np.ones((LONGEST, clients), dtype=np.float32)
    paper = rounds_of("scheme-I", "inverse-probability")
    own, least = covered("equal-blocks", "optimal-unbiased"), covered("equal-blocks", "least-squares")
    unbiased = paper.played.coverage.astype(np.float32)
    return {
        "everyone": lambda: (full, full),
        "Scheme I, one track": lambda: (unbiased, unbiased),
        "Scheme I, two tracks": lambda: (unbiased, second_track(paper)),
        "fedgc, one track": lambda: (own, own),
        "fedgc, two tracks": lambda: (own, least),
        "fedgc, least squares for both": lambda: (least, least),
    }


def told(rounds: NDArray[np.float64]) -> tuple[float | str, float | str]:
    """Return what the table says of the seeds' rounds: mean and half of its interval, or words where some have none.

    Examples
    --------
    >>> told(np.array([40.0, 44.0])), told(np.array([40.0, np.inf, np.nan, np.inf]))
    ((42.0, 25.4), ('never (2 of 4 seeds), diverged (1 of 4 seeds)', ''))
    """
    if np.isfinite(rounds).all():
        mean, half = mean_and_half_width(rounds)
        return round(mean, 1), round(half, 1)
    counts = {"never": int(np.isinf(rounds).sum()), "diverged": int(np.isnan(rounds).sum())}
    return ", ".join(f"{word} ({n} of {rounds.size} seeds)" for word, n in counts.items() if n), ""


def main() -> None:
    """Run all pairs, print a table and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["tau", "tracks", "step", "rounds", "half_interval"])
    for tau in (1.5, 1.1):
        found: dict[str, list[list[float]]] = {}
        for seed in range(1, args.seeds + 1):
            task = DigitsRegressionTask(shards=args.clients, partition="sorted", seed=seed)
            for name, pair in tracks(tau, args.clients, seed).items():
                first, second = pair()
                rounds = [rounds_to_target(task, first, second, step) for step in STEPS]
                found.setdefault(name, []).append(rounds)
        for name, by_seed in found.items():
            values = np.array(by_seed)
            best = int(np.where(np.isnan(values), np.inf, values).mean(axis=0).argmin())
            row = [tau, name, STEPS[best], *told(values[:, best])]
            writer.writerow(row)
            print(*row, sep=", ", flush=True)
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
        write_whole(args.out / "adam.csv", table.getvalue().encode())


if __name__ == "__main__":
    main()
