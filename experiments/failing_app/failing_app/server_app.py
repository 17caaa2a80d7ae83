"""The server: after every round it compares the decoded step with that of all shards, which it computes itself."""

import json
from pathlib import Path

import numpy as np
from fedgc.strategies import GradientCoding
from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from fedgc.assignment import AssignmentConstraints

from .task import accuracy, data, flat, full_step, initial_arrays

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train, and write down what became of every round."""
    config = context.run_config
    n_clients = int(config["num-clients"])
    strategy = GradientCoding(
        FedAvg(fraction_evaluate=0.0, min_train_nodes=n_clients, min_available_nodes=n_clients),
        num_shards=n_clients,
        load=int(config["load"]),
        deadline=float(config["deadline"]),
        # Shards take so little time here that without a limit blocks grow until no error is left to be predicted.
        constraints=AssignmentConstraints(computation=[int(config["load"])] * n_clients),
        early_end=False,  # whoever fails says so, and a round ends when all have been heard
        shard_examples=[shard.size for shard in data(n_clients)[2]],
        seed=int(config["seed"]),
    )
    models, told = [initial_arrays()], []

    def compare(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        metrics = MetricRecord({"accuracy": accuracy(arrays)})
        if server_round > 0:
            before, report = models.pop(), strategy.history[-1]
            full = full_step(n_clients, before)
            missed = flat(arrays) - flat(before) - full
            told.append(
                {
                    "asked": report.n_clients,
                    "came": report.n_arrived,
                    "seconds": report.seconds,
                    "predicted": report.predicted_residual_error,
                    "observed": float(np.square(missed).sum() / np.square(full).sum()),
                    "accuracy": metrics["accuracy"],
                }
            )
            models.append(arrays)
        return metrics

    strategy.start(grid, models[0], num_rounds=int(config["num-server-rounds"]), evaluate_fn=compare)
    if out := str(config["out"]):
        Path(out).write_text(json.dumps(told))
