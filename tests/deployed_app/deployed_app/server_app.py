"""The server: an undisturbed part that is summed exactly, then a part in which anything may be killed."""

import json
import logging
from pathlib import Path

import numpy as np
from fedgc.strategies import GradientCoding, PushedShards
from flwr.app import ConfigRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from .task import N_SHARDS, evaluate, initial_arrays, shard_examples, shard_of

app = ServerApp()

#: Seconds: far more than a round takes.
ALL_COME = 150.0
#: The deadline of the disturbed rounds is so many times the longest undisturbed one, and some seconds.
LONGER, SECONDS_MORE = 1.3, 2.0
#: What the test waits for.
BEGIN = "From here on clients may be killed"


def inner() -> FedAvg:
    """Return FedAvg over whoever is there."""
    return FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1)


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train twice, and write down what came of it."""
    config, out = context.run_config, Path(str(context.run_config["out"]))
    all_nodes = sorted(grid.get_node_ids())
    # Sums modulo 2^64 are the same in whatever order replies come.
    pushed = PushedShards(shard_of) if config["store"] else None
    exact = GradientCoding(
        inner(),
        num_shards=N_SHARDS,
        deadline=ALL_COME,
        decoder="fixed",
        early_end=False,
        reassignment_gain=1.0,  # blocks by speed would differ between real times and virtual ones
        secure_sum=True,
        shard_examples=shard_examples(),
        shards=pushed,
        start_timeout=0.0,
    )
    undisturbed = exact.start(
        grid, initial_arrays(), int(config["rounds"]), evaluate_fn=lambda _, arrays: evaluate(arrays)
    )
    np.savez(out / "undisturbed.npz", **{name: array.numpy() for name, array in undisturbed.arrays.items()})

    longest = max((report.seconds or 0.0 for report in exact.history), default=0.0)
    coded = GradientCoding(
        inner(),
        num_shards=N_SHARDS,
        deadline=float(config["deadline"]) or LONGER * longest + SECONDS_MORE,
        early_end=False,
        shard_examples=shard_examples(),
        start_timeout=0.0,
        checkpoints=str(config["checkpoints"]) or None,
        resume=bool(config["checkpoints"]),
    )
    logging.getLogger("flwr").info(BEGIN)
    disturbed = coded.start(
        grid,
        initial_arrays(),
        int(config["disturbed-rounds"]),
        train_config=ConfigRecord({"killed": [int(node) for node in str(config["killed"]).split()]}),
        evaluate_fn=lambda _, arrays: evaluate(arrays),
    )
    told = {
        "nodes": all_nodes,
        "pushed": 0 if pushed is None else sum(pushes.n_shards for pushes in pushed.history),
        "undisturbed": [_told(report) for report in exact.history],
        "disturbed": [_told(report) for report in coded.history],
        "accuracy": [_last(undisturbed.evaluate_metrics_serverapp), _last(disturbed.evaluate_metrics_serverapp)],
        "straggle_prob": {str(one.node_id): one.straggle_prob for one in coded.state.reliability.describe(all_nodes)},
    }
    (out / "told.json").write_text(json.dumps(told))


def _told(report: object) -> dict[str, object]:
    return {
        "nodes": list(report.node_ids),
        "arrived": report.arrived.tolist(),
        "seconds": report.seconds,
        "deadline": report.deadline,
        "straggle_prob": report.straggle_prob.tolist(),
        "rejected": {str(node): reason for node, reason in report.rejected.items()},
    }


def _last(metrics: dict[int, MetricRecord]) -> float:
    return float(metrics[max(metrics)]["accuracy"]) if metrics else 0.0
