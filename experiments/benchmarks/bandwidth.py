"""How many bytes of updates a server folds in per second, beside numpy's in-place weighted sum of the same bytes.

    OMP_NUM_THREADS=1 .venv/bin/python experiments/benchmarks/bandwidth.py --out results/bandwidth [--quick]

Replies of 5.4 million numbers in single precision, each of other shards, are handed to the strategy one by one, as they
come; then the round is closed. Beside it the same replies summed by ``np.multiply`` into a buffer and ``+=``, for which
somebody has to have read them; two such sums, as the strategy keeps two, since its weights have a common factor that is
known when the round ends (:class:`fedgc.decoders.StreamingSum`); and a copy from memory to memory. In turn, medians of
the repeats.
"""

from __future__ import annotations

import argparse
import csv
import logging
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from bench_server import MODELS, model, open_round, reply_to, timed
from flwr.app import ArrayRecord
from numpy.typing import NDArray

from fedgc.records.array_bytes import view, views
from fedgc.simulation.run import _task_identity

Arrays = dict[str, NDArray[Any]]


def weighted_sums(flat: list[Arrays], sums: list[Arrays], buffers: Arrays) -> None:
    """Sum the replies with numpy, in place, all with the same weight in each of the sums."""
    for arrays in flat:
        for k, into in enumerate(sums, start=1):
            weight = np.float32(1.0 / (k * len(flat)))
            for name, array in arrays.items():
                np.multiply(array, weight, out=buffers[name])
                into[name] += buffers[name]


def rows_of(name: str, n_replies: int, repeats: int, shrink: int) -> list[dict[str, Any]]:
    """Return the gigabytes per second of each way."""
    shapes = [(shape[0] // shrink, shape[1]) for shape in MODELS[name]]
    updates = [_drawn(shapes, k) for k in range(n_replies)]
    size = sum(view(array).nbytes for update in updates for array in update.values())
    ways = "fedgc, as replies come", "numpy's weighted sum", "two of these sums", "copy"
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(repeats):
        strategy, messages = open_round(_drawn(shapes, -1), n_replies, 1)
        replies = [reply_to(message, update) for message, update in zip(messages, updates, strict=True)]
        took = timed(lambda s=strategy, replies=replies: [s._run.open.take(reply) for reply in replies])  # type: ignore[misc]
        seconds["fedgc, as replies come"].append(took)
        strategy.aggregate_train(1, [])
        flat = [views(update) for update in updates]
        into, other, buffers = ({key: np.zeros_like(value) for key, value in flat[0].items()} for _ in range(3))
        for way, sums in (("numpy's weighted sum", [into]), ("two of these sums", [into, other])):
            took = timed(lambda flat=flat, sums=sums, buffers=buffers: weighted_sums(flat, sums, buffers))  # type: ignore[misc]
            seconds[way].append(took)
        seconds["copy"].append(
            timed(lambda flat=flat, into=into: [np.copyto(into[key], one[key]) for one in flat for key in one])  # type: ignore[misc]
        )
    base = seconds["numpy's weighted sum"]
    return [
        {
            "model": name,
            "replies": n_replies,
            "way": way,
            "gigabytes_per_second": round(size / 1e9 / median(took), 3),
            "relative_to_numpy": round(median(other / one for one, other in zip(took, base, strict=True)), 3),
        }
        for way, took in seconds.items()
    ]


def _drawn(shapes: list[tuple[int, int]], seed: int) -> ArrayRecord:
    return model(shapes, seed + 1)


def main() -> None:
    """Measure and write a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replies", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="4 replies of a fiftieth of the model, twice")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    logging.getLogger("flwr").setLevel(logging.ERROR)
    n_replies, repeats, shrink = (4, 2, 50) if args.quick else (args.replies, args.repeats, 1)
    with _task_identity():
        rows = [row for name in MODELS for row in rows_of(name, n_replies, repeats, shrink)]
    args.out.mkdir(parents=True, exist_ok=True)
    with (args.out / "bandwidth.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        print(*row.values(), sep="  ")


if __name__ == "__main__":
    main()
