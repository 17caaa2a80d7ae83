"""The server: it tells after every round who came, how good the model is, and how much memory it has ever taken."""

import json
from pathlib import Path

from fedgc.strategies import GradientCoding
from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from .task import task_of

app = ServerApp()


def peak_mb() -> float:
    """Return the most memory that this process has ever had resident, in MB."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0.0
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train."""
    config, task = context.run_config, task_of(context.run_config)
    n_clients = int(config["num-clients"])
    strategy = GradientCoding(
        FedAvg(fraction_evaluate=0.0, min_train_nodes=n_clients, min_available_nodes=n_clients),
        num_shards=int(config["num-shards"]),
        load=int(config["load"]),
        deadline=float(config["deadline"]),
        early_end=False,  # whoever comes last is heard too
        reassignment_gain=1.0,  # the times of this machine are no part of what is compared
        start_timeout=0.0,
        shard_examples=task.shard_examples,
        seed=1,
    )
    rounds: list[dict[str, object]] = []

    def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        metrics = task.evaluate(arrays)
        told: dict[str, object] = {"accuracy": metrics["accuracy"], "peak-mb": peak_mb()}
        if server_round > 0:
            report = strategy.history[-1]
            told |= {"asked": report.n_clients, "arrived": report.n_arrived, "seconds": report.seconds}
            told["rejected"] = {str(node): reason for node, reason in report.rejected.items()}
        rounds.append(told)
        if out := str(config["out"]):
            Path(out).write_text(json.dumps(rounds))
        return metrics

    strategy.start(grid, task.initial_arrays(), num_rounds=int(config["num-rounds"]), evaluate_fn=evaluate)
