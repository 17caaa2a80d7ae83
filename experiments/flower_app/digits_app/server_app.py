"""The server: GradientCoding around FedAvg, tested on the server after every round."""

from fedgc.strategies import GradientCoding, StatusPage
from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from .task import task_of

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train, and print what became of every round."""
    config = context.run_config
    task = task_of(config)
    n_clients = int(config["num-clients"])
    at_least = int(config["min-available-nodes"]) or n_clients
    strategy = GradientCoding(
        FedAvg(fraction_evaluate=0.0, min_train_nodes=at_least, min_available_nodes=at_least),
        num_shards=int(config["num-shards"]),
        load=int(config["load"]),
        schedule=str(config["schedule"]),
        decoder=str(config["decoder"]),
        deadline=float(config["deadline"]),
        # Phones that would be late sleep until the deadline here, and keep a process of the simulation busy meanwhile.
        early_end=False,
        shard_examples=task.shard_examples,
        checkpoints=str(config["checkpoints"]) or None,
        resume=bool(config["checkpoints"]),
        reporters=[StatusPage(str(config["status"]))] if config["status"] else [],
        seed=int(config["seed"]),
    )

    def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        metrics = task.evaluate(arrays)
        if server_round > 0:
            report = strategy.history[-1]
            came = f"{report.n_arrived} of {report.n_clients} clients came"
            over = 1000.0 * ((report.seconds or 0.0) - report.deadline)
            print(
                f"round {server_round}: {came}, test accuracy {metrics['accuracy']:.3f}, "
                f"ended {over:+.0f} ms after its deadline",
                flush=True,
            )
        return metrics

    strategy.start(grid, task.initial_arrays(), num_rounds=int(config["num-server-rounds"]), evaluate_fn=evaluate)
