"""Small shards to push, clients that train on them, and a look at what leaves the server."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from fedgc.clients import ShardStore, ShardUpdate, gradient_coded
from fedgc.strategies import GradientCoding, PushedShards
from flwr.app import ArrayRecord, ConfigRecord, Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from numpy.typing import NDArray

from fedgc.fleets import Fleet
from fedgc.shard_format import pack_shard, shard_digest
from fedgc.simulation import VirtualRun
from tests.apps import EXAMPLES, N_SHARDS, arrays_of, train

INNER = {"fraction_evaluate": 0.0, "min_train_nodes": 1, "min_available_nodes": 1}


def shard_data(shard_id: int) -> dict[str, NDArray[Any]]:
    """What :func:`tests.apps.shard_delta` computes, as data: a direction, and so many rows as there are examples."""
    weight = np.zeros((2, 2))
    weight.flat[shard_id % 4] = 1.0 + shard_id
    return {"weight": weight, "bias": np.array([0.25 * shard_id], np.float32), "rows": np.zeros(EXAMPLES[shard_id])}


SHARDS = {shard_id: shard_data(shard_id) for shard_id in range(N_SHARDS)}
DIGESTS = [shard_digest(pack_shard(SHARDS[shard_id])) for shard_id in range(N_SHARDS)]
BYTES = [len(pack_shard(SHARDS[shard_id])) for shard_id in range(N_SHARDS)]


def train_on(shard_id: int, arrays: ArrayRecord, config: ConfigRecord, shard: dict[str, Any]) -> ShardUpdate:
    values = arrays_of(arrays)
    delta = {"weight": shard["weight"] - 0.1 * values["weight"], "bias": shard["bias"]}
    shard["weight"][:] = -1.0  # a trainer's scribbling must reach nobody else
    return ShardUpdate(len(shard["rows"]), delta=delta, metrics={"loss": float(shard_id)})


def app_of(**options: Any) -> ClientApp:
    app = ClientApp()
    app.train()(gradient_coded(num_shards=N_SHARDS, **options)(train_on))
    return app


def stores_in(folder: Path, max_bytes: int = 10**6) -> Callable[[Context], ShardStore]:
    return lambda context: ShardStore(folder / str(context.node_config["partition-id"]), max_bytes)


class Sent:
    """Pushed shards of every train message, by round and client, as they leave the server."""

    def __init__(self) -> None:
        self.rounds: list[dict[int, list[int]]] = []
        self.assigned: list[dict[int, list[int]]] = []
        self.spoil: Callable[[int, Message], None] = lambda server_round, message: None
        self.messages: list[Message] = []

    def watch(self, grid: Grid) -> None:
        push = grid.push_messages

        def watched(messages: Iterable[Message]) -> Iterable[str]:
            batch = list(messages)
            if not batch:  # evaluation
                return push(batch)
            self.rounds.append({})
            self.assigned.append({})
            for message in batch:
                client, records = message.metadata.dst_node_id - 100, message.content.config_records
                names = [name for name in records if name.startswith("fedgc-shard-")]
                self.rounds[-1][client] = sorted({int(name.split("-")[2]) for name in names})
                self.assigned[-1][client] = list(records["fedgc"]["shard-ids"])  # type: ignore[arg-type]
                self.spoil(len(self.rounds), message)
            self.messages += batch
            return push(batch)

        grid.push_messages = watched  # type: ignore[method-assign]

    def to(self, client: int) -> list[list[int]]:
        return [pushed.get(client, []) for pushed in self.rounds]


def run(
    shards: PushedShards | None,
    app: ClientApp,
    fleet: Fleet,
    *,
    rounds: int = 3,
    sent: Sent | None = None,
    **options: Any,
) -> tuple[GradientCoding, dict[str, NDArray[Any]], VirtualRun]:
    settings = {"num_shards": N_SHARDS, "deadline": 1e3, **options}
    strategy = GradientCoding(FedAvg(**INNER), shards=shards, **settings)  # type: ignore[arg-type]
    result, trace = train(strategy, fleet, rounds=rounds, app=app, on_grid=None if sent is None else sent.watch)
    return strategy, arrays_of(result.arrays), trace
