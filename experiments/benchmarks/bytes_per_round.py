"""What do more sums per reply cost, and fewer bits? Bytes of replies against residual error, in virtual time.

Digits on the uneven fleet: 20 clients, 80 label-skewed shards, two holders on work lists, a deadline in which the fleet
can do every shard once. The bytes are those of the replies' arrays as Flower serialises them; with --whole, of the
replies with all their records.

    .venv/bin/python experiments/benchmarks/bytes_per_round.py [--preset uneven] [--rounds 40] [--bits 32 8 4]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from fedgc.clients import gradient_coded
from fedgc.strategies import GradientCoding
from flwr.app import ArrayRecord, Context, Message, MetricRecord
from flwr.clientapp import ClientApp
from flwr.common.serde import array_record_to_proto, recorddict_to_proto
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from fedgc.assignment import SUMS
from fedgc.deadline import cover_time
from fedgc.experiment.audit import measured_residual_error, remember_round, shard_trainer
from fedgc.fleets import build_fleet
from fedgc.planning.rounding import SINGLE
from fedgc.simulation import run_virtual
from fedgc.tasks import DigitsTask


class Measured(NamedTuple):
    """Means over the rounds of a run: bytes of replies, models in them per client that came, residual errors."""

    size: float
    models: float
    predicted: float
    measured: float


def measure(sums: str, bits: int, seed: int, args: argparse.Namespace) -> Measured:
    """Train with so many sums per reply, of so many bits per entry; 32 for sums as they are."""
    task = DigitsTask(shards=args.shards, seed=seed, local_epochs=1, learning_rate=0.1)
    trainer = remember_round(task.train_union)
    shards = [[shard] for shard in range(args.shards)]
    fleet = build_fleet({"preset": args.preset, "clients": args.clients}, seed=seed)
    strategy = GradientCoding(
        FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1),
        num_shards=args.shards,
        deadline=args.deadline * cover_time(fleet, args.shards),
        load=args.holders,
        schedule="work-list",
        sums=sums,
        bits=None if bits == SINGLE else bits,
        early_end=False,
        shard_examples=task.shard_examples,
        timing=fleet,
        seed=seed,
    )
    app, server = ClientApp(), ServerApp()
    app.train()(gradient_coded()(shard_trainer(trainer)))
    sizes: list[int] = []
    models = 0
    measured: list[float] = []

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        before = task.initial_arrays()
        pull = grid.pull_messages

        def counted(ids: Iterable[str]) -> list[Message]:
            nonlocal models
            replies = list(pull(ids))
            for reply in replies:
                if reply.has_content():
                    models += len(reply.content.array_records)
                if reply.has_content() and args.whole:
                    sizes.append(recorddict_to_proto(reply.content).ByteSize())
                elif reply.has_content():
                    sizes.extend(array_record_to_proto(one).ByteSize() for one in reply.content.array_records.values())
            return replies

        def audit(server_round: int, arrays: ArrayRecord) -> MetricRecord:
            nonlocal before
            if server_round > 0:
                told = {"server_round": server_round, "run_seed": seed}
                measured.append(measured_residual_error(trainer, shards, task.shard_examples, before, arrays, **told))
            before = arrays
            return MetricRecord()

        grid.pull_messages = counted  # type: ignore[method-assign]
        strategy.start(grid, before, num_rounds=args.rounds, evaluate_fn=audit)

    run = run_virtual(server, app, fleet)
    assert not any(event.kind == "failed" for event in run.trace)
    replied = sum(event.kind == "replied" for event in run.trace)
    predicted = [report.predicted_residual_error for report in strategy.history]
    return Measured(
        sum(sizes) / args.rounds,
        models / replied,
        float(np.mean([one for one in predicted if one is not None])),
        float(np.mean(measured)),
    )


def main() -> None:
    """Print a row for each choice."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="uneven")
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--shards", type=int, default=80)
    parser.add_argument("--holders", type=int, default=2)
    parser.add_argument("--deadline", type=float, default=1.0, help="in times of doing every shard once")
    parser.add_argument("--whole", action="store_true", help="count the replies' other records too")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--bits", type=int, nargs="+", default=[SINGLE], help="bits per entry; 32: none rounded")
    args = parser.parse_args()
    print("| sums | bits | kB per round | models per reply | residual error predicted | measured |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for sums in reversed(SUMS):
        for bits in args.bits:
            runs = np.array([measure(sums, bits, seed, args) for seed in range(1, args.seeds + 1)])
            size, models, predicted, measured = runs.mean(axis=0)
            print(
                f'| `"{sums}"` | {bits} | {size / 1e3:.1f} | {models:.1f} | {predicted:.3f} | {measured:.3f} |',
                flush=True,
            )


if __name__ == "__main__":
    main()
