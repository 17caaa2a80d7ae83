"""Does the plan tell the truth? Predictions of ``fedgc plan`` against the virtual-time runtime, on every preset fleet.

Every choice of a reduced grid is run in the runtime with the fleet known to the strategy. Round time and residual error
are compared with what was predicted; the coverages that came about are then replayed on multinomial regression of
scikit-learn's digits, label-sorted shards, with the step tuned for each choice: the observed time to target.

    .venv/bin/python experiments/planning/check_plan.py --out results/check_plan.csv [--preset uneven] [--rounds 300]
"""

from __future__ import annotations

import argparse
import csv
import logging
from pathlib import Path
from typing import Any

import numpy as np
from fedgc.clients import ShardUpdate, gradient_coded
from fedgc.strategies import GradientCoding, RoundReport
from flwr.app import Array, ArrayRecord, ConfigRecord, Context
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from fedgc.decoders import OptimalUnbiasedDecoder
from fedgc.fleets import Fleet, build_fleet, presets
from fedgc.gram import KnownCoherence
from fedgc.planning import Choice, constraints_of, plan_fleet
from fedgc.simulation import run_virtual

STEPS = np.array([1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0])


def run_choice(fleet: Fleet, choice: Choice, n_shards: int, rounds: int) -> list[RoundReport]:
    """Run a choice in virtual time and return what happened in each round."""
    decoder: Any = choice.decoder
    if decoder == "optimal-unbiased":
        decoder = OptimalUnbiasedDecoder(most_states=4096)
    strategy = GradientCoding(
        FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1),
        num_shards=n_shards,
        deadline=choice.deadline,
        load=choice.redundancy,
        schedule=choice.schedule,
        decoder=decoder,
        shard_examples=[1] * n_shards,
        timing=fleet,
        constraints=constraints_of(fleet),
        coherence=KnownCoherence(energy=1.0, overlap=0.0),
    )
    app = ClientApp()

    @app.train()
    @gradient_coded(num_shards=n_shards)
    def train(shard_id: int, arrays: ArrayRecord, config: ConfigRecord) -> ShardUpdate:
        return ShardUpdate(1, delta={"w": np.zeros(1)})

    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        strategy.start(grid, ArrayRecord({"w": Array(np.zeros(1))}), num_rounds=rounds)

    run_virtual(server, app, fleet, num_shards=n_shards)
    return strategy.history


class Digits:
    """Multinomial regression on digits, shards sorted by label; full gradients of all shards at once."""

    def __init__(self, n_shards: int) -> None:
        images, labels = load_digits(return_X_y=True)
        order = np.random.default_rng(0).permutation(labels.size)[:1437]
        order = order[np.argsort(labels[order], kind="stable")]
        self.x = np.c_[images[order] / 16.0, np.ones(order.size)].astype(np.float32)
        self.y = np.eye(10, dtype=np.float32)[labels[order]]
        self.of = np.repeat(np.arange(n_shards), [part.size for part in np.array_split(order, n_shards)])

    def rounds_to(self, coverage: NDArray[np.float64], target: float, most: int, *, memory: bool = False) -> float:
        """Return the rounds until the loss falls to `target`, with the best step; infinite if never.

        With `memory` each shard's last recovered update is kept, and differences from it are decoded.
        """
        kept = np.zeros((self.y.shape[0], STEPS.size, 10), np.float32) if memory else None
        n, steps = self.y.shape[0], STEPS.astype(np.float32)
        weights = np.zeros((65, steps.size, 10), np.float32)
        for number in range(most):
            z = (self.x @ weights.reshape(65, -1)).reshape(n, steps.size, 10)
            z -= z.max(axis=2, keepdims=True)
            np.exp(z, out=z)
            z /= z.sum(axis=2, keepdims=True)
            with np.errstate(divide="ignore"):
                loss = -np.log((z * self.y[:, None]).sum(axis=2)).mean(axis=0)
            if (loss <= target).any():
                return float(number)
            going = np.isfinite(loss) & (loss < 50.0)
            if not going.any():
                break
            steps, weights, z = steps[going], weights[:, going], z[:, going]
            z -= self.y[:, None]
            weight = coverage[number % coverage.shape[0]][self.of].astype(np.float32)
            if kept is None:
                z *= weight[:, None, None]
            else:
                kept = kept[:, going]
                seen, now = weight > 0.0, z
                z = kept + weight[:, None, None] * (now - kept)
                kept[seen] = now[seen]
            weights -= steps[None, :, None] * (self.x.T @ z.reshape(n, -1)).reshape(65, steps.size, 10) / n
        return np.inf

    def loss_of_descent(self, rounds: int) -> float:
        """Return the loss that gradient descent reaches after so many rounds, with the best step."""
        low, high = 0.0, 3.0
        while high - low > 1e-3:
            middle = (low + high) / 2
            full = np.ones((1, int(self.of.max()) + 1))
            low, high = (low, middle) if self.rounds_to(full, middle, rounds + 1) <= rounds else (middle, high)
        return high


def standard_error(values: NDArray[np.float64], batches: int = 20) -> float:
    """Return the standard error of a mean of correlated values, from batch means."""
    means = np.array([part.mean() for part in np.array_split(values, batches)])
    return float(means.std(ddof=1) / np.sqrt(batches))


def check(preset: str, args: argparse.Namespace, task: Digits, target: float) -> list[dict[str, Any]]:
    """Compare predictions and observations on one fleet."""
    fleet = build_fleet({"preset": preset, "clients": args.clients}, seed=args.seed)
    plan = plan_fleet(
        fleet, n_shards=args.shards, redundancies=(1, 2, 3), schemes=False, constraints=constraints_of(fleet)
    )
    # The best deadline of each kind and its neighbours; those hopeless by prediction are not run.
    chosen = [c for c in plan.choices if c.relative_time_to_target < args.worst and c.decoder == "optimal-unbiased"]
    rows = []
    for choice in sorted({*chosen, plan.recommended}, key=lambda c: (c.schedule, c.redundancy, c.deadline)):
        history = run_choice(fleet, choice, args.shards, args.rounds)
        seconds = np.array([report.seconds for report in history], dtype=np.float64)
        errors = np.array([report.model_residual_error for report in history])
        coverage = np.array([report.coverage for report in history])
        needed = task.rounds_to(coverage, target, 6 * 100)
        row = {
            "preset": preset,
            "redundancy": choice.redundancy,
            "schedule": choice.schedule,
            "decoder": choice.decoder,
            "deadline": choice.deadline,
            "round_time_predicted": choice.round_time,
            "round_time": seconds.mean(),
            "error_predicted": choice.residual_error,
            "error": errors.mean(),
            "error_standard_error": standard_error(errors),
            "rounds_to_target": needed,
            "time_to_target": needed * seconds.mean(),
            "relative_predicted": choice.relative_time_to_target,
            "recommended": choice == plan.recommended,
        }
        rows.append(row)
        gap = (row["error"] - row["error_predicted"]) / max(row["error_standard_error"], 1e-12)
        print(
            f"{preset:13s} {choice.redundancy} {choice.schedule:9s} T={choice.deadline:8.3g}"
            f" round {row['round_time'] / row['round_time_predicted'] - 1:+6.1%}"
            f" error {row['error']:.4g} against {row['error_predicted']:.4g} ({gap:+.1f} s.e.)"
            f" time to target {row['time_to_target']:.4g}{'  recommended' if row['recommended'] else ''}",
            flush=True,
        )
    best = min(row["time_to_target"] for row in rows)
    own = next(row["time_to_target"] for row in rows if row["recommended"])
    print(f"{preset}: the recommended choice takes {own / best - 1:+.1%} of the best one's time; {plan.verdict}")
    return rows


def write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows of equal keys as CSV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    """Check the presets and write a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", action="append")
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--shards", type=int, default=80)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--worst", type=float, default=1.6, help="leave out what is predicted to take longer")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    logging.getLogger("flwr").setLevel(logging.ERROR)
    task = Digits(args.shards)
    target = task.loss_of_descent(100)
    rows = [row for preset in args.preset or presets() for row in check(preset, args, task, target)]
    if args.out is not None:
        write_table(args.out, rows)


if __name__ == "__main__":
    main()
