"""Small apps for tests: a linear model in numpy whose exact aggregate is known, and clients that misbehave."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from fedgc.clients import ShardUpdate, gradient_coded
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import Result, Strategy
from numpy.typing import NDArray

from fedgc.fleets import Fleet, build_fleet
from fedgc.simulation import VirtualRun, run_virtual

N_SHARDS = 6
EXAMPLES = [3, 1, 4, 1, 5, 9]


def initial_arrays() -> ArrayRecord:
    return ArrayRecord(
        {"weight": _array(np.arange(4.0).reshape(2, 2)), "bias": _array(np.array([0.5], dtype=np.float32))}
    )


def _array(value: NDArray[Any]) -> Any:
    return next(iter(ArrayRecord([value]).values()))


def shard_delta(shard_id: int, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """A different direction for every shard, plus a pull to the origin that makes rounds depend on each other."""
    weight = np.zeros((2, 2))
    weight.flat[shard_id % 4] = 1.0 + shard_id
    return {"weight": weight - 0.1 * arrays["weight"], "bias": np.array([0.25 * shard_id], dtype=np.float32)}


def train_shard(shard_id: int, arrays: ArrayRecord, config: ConfigRecord) -> ShardUpdate:
    values = {name: array.numpy() for name, array in arrays.items()}
    return ShardUpdate(EXAMPLES[shard_id], delta=shard_delta(shard_id, values), metrics={"loss": float(shard_id)})


def full_aggregate(arrays: ArrayRecord) -> dict[str, NDArray[Any]]:
    """Every shard's update, weighted by examples: what all strategies estimate."""
    values = {name: array.numpy() for name, array in arrays.items()}
    deltas = [shard_delta(shard_id, values) for shard_id in range(N_SHARDS)]
    share = np.array(EXAMPLES) / sum(EXAMPLES)
    return {name: sum(s * d[name] for s, d in zip(share, deltas, strict=True)) for name in values}


def shard_app(spoil: Callable[[Message, int], Message | None] | None = None) -> ClientApp:
    """An app with the trainer above; `spoil` may replace the reply of a partition."""
    app = ClientApp()

    def mod(message: Message, context: Context, call_next: Callable[[Message, Context], Message]) -> Message:
        reply = call_next(message, context)
        changed = spoil(reply, int(context.node_config["partition-id"])) if spoil else None
        return changed if changed is not None else reply

    app.train(mods=[mod])(gradient_coded(num_shards=N_SHARDS)(train_shard))

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        return Message(RecordDict({"metrics": MetricRecord({"num-examples": 1, "loss": 0.5})}), reply_to=message)

    return app


def steady(clients: int = 6, **settings: Any) -> Fleet:
    return build_fleet({"model": "log-normal", "clients": clients, "sigma": 0.0, **settings}, seed=1)


def train(
    strategy: Strategy,
    fleet: Fleet,
    *,
    rounds: int = 1,
    app: ClientApp | None = None,
    on_grid: Callable[[Grid], None] | None = None,
    backlog: bool = False,
) -> tuple[Result, VirtualRun]:
    """Run a strategy on a fleet; training starts from :func:`initial_arrays`."""
    results: list[Result] = []
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        if on_grid:
            on_grid(grid)
        results.append(strategy.start(grid, initial_arrays(), num_rounds=rounds, timeout=1e5))

    run = run_virtual(server, app or shard_app(), fleet, num_shards=N_SHARDS, backlog=backlog)
    return results[0], run


def arrays_of(record: ArrayRecord) -> dict[str, NDArray[Any]]:
    return {name: array.numpy() for name, array in record.items()}
