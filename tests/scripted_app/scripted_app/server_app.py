"""The server: every case of the script, the models kept after each round."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from fedgc.strategies import GradientCoding
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from fedgc.coherence import KnownCoherence

from .script import CASES, DEADLINE, FATES, FIRST_DEADLINE, N_CLIENTS, N_SHARDS, SEED, expected_fleet
from .task import evaluate, initial_arrays, shard_examples

app = ServerApp()


class Numbered(FedAvg):
    """FedAvg that tells each client its number in ascending order of the node ids, as the plan counts them."""

    def __init__(self, rotate: int) -> None:
        super().__init__(fraction_evaluate=0.0, min_train_nodes=N_CLIENTS, min_available_nodes=N_CLIENTS)
        self.rotate = rotate

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Add the number to Flower's messages, which share one content."""
        messages = sorted(
            super().configure_train(server_round, arrays, config, grid), key=lambda one: one.metadata.dst_node_id
        )
        numbered = []
        for client, message in enumerate(messages):
            place = ConfigRecord({"client": (client + self.rotate) % N_CLIENTS})
            content = RecordDict({**message.content, "place": place})
            numbered.append(Message(content, message.metadata.dst_node_id, message.metadata.message_type))
        return numbered


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train, case by case."""
    kept: dict[str, np.ndarray] = {}
    for case, options in CASES.items():
        strategy = GradientCoding(
            Numbered(int(context.run_config["rotate"])),
            num_shards=N_SHARDS,
            deadline=DEADLINE,
            first_deadline=FIRST_DEADLINE,
            early_end=False,
            shard_examples=shard_examples(),
            timing=expected_fleet(),
            coherence=KnownCoherence(energy=1.0, overlap=0.4),
            seed=SEED,
            **options,
        )

        def keep(server_round: int, arrays: ArrayRecord, case: str = case) -> MetricRecord:
            for name, array in arrays.items():
                kept[f"{case}/{server_round}/{name}"] = array.numpy()
            return evaluate(arrays)

        config = ConfigRecord({"case": case})
        result = strategy.start(grid, initial_arrays(), len(FATES[case]), train_config=config, evaluate_fn=keep)
        kept[f"{case}/came"] = np.array([report.n_arrived for report in strategy.history])
        kept[f"{case}/accuracy"] = np.array([one["accuracy"] for one in result.evaluate_metrics_serverapp.values()])
    out = Path(str(context.run_config["out"]))
    np.savez(out.with_suffix(".part.npz"), **kept)
    out.with_suffix(".part.npz").replace(out)  # whole, as soon as it is there
