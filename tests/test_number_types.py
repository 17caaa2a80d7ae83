"""Arrays of other types than floats: averaged on the embedded runtime, over real messages."""

from __future__ import annotations

import numpy as np
from fedgc.clients import ShardUpdate, gradient_coded
from flwr.app import Array, ArrayRecord, ConfigRecord, Context
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from fedgc.simulation import run_virtual
from tests.apps import EXAMPLES, N_SHARDS, arrays_of, steady
from tests.coding_cases import certain, coding


def test_integer_arrays_are_averaged_too() -> None:
    """Counters, as batch normalisation has them."""
    app = ClientApp()

    @app.train()
    @gradient_coded(num_shards=N_SHARDS)
    def trainer(shard_id: int, arrays: ArrayRecord, config: ConfigRecord) -> ShardUpdate:
        after = {name: array.numpy() for name, array in arrays.items()}
        after["steps"] = after["steps"] + 7
        return ShardUpdate(EXAMPLES[shard_id], arrays=after)

    results = []

    def main(grid: Grid, context: Context) -> None:
        start = ArrayRecord({"steps": Array(np.array(5)), "w": Array(np.zeros(2))})
        results.append(coding(reliability=certain()).start(grid, start, num_rounds=1))

    server = ServerApp()
    server.main()(main)
    run_virtual(server, app, steady())
    assert arrays_of(results[0].arrays)["steps"] == 12


def test_half_precision_survives_large_shards() -> None:
    """Weighted by thousands of examples, half-precision updates would overflow in their own dtype."""
    app = ClientApp()

    @app.train()
    @gradient_coded(num_shards=N_SHARDS)
    def trainer(shard_id: int, arrays: ArrayRecord, config: ConfigRecord) -> ShardUpdate:
        return ShardUpdate(5000, delta={"w": np.full(2, 20.0, dtype=np.float16)})

    results = []

    def main(grid: Grid, context: Context) -> None:
        strategy = coding(shard_examples=[5000] * N_SHARDS, reliability=certain())
        start = ArrayRecord({"w": Array(np.zeros(2, dtype=np.float16))})
        results.append(strategy.start(grid, start, num_rounds=3))

    server = ServerApp()
    server.main()(main)
    run_virtual(server, app, steady())
    np.testing.assert_array_equal(arrays_of(results[0].arrays)["w"], np.full(2, 60.0, dtype=np.float16))


def test_flags_are_arrays_too() -> None:
    app = ClientApp()

    @app.train()
    @gradient_coded(num_shards=N_SHARDS)
    def trainer(shard_id: int, arrays: ArrayRecord, config: ConfigRecord) -> ShardUpdate:
        return ShardUpdate(EXAMPLES[shard_id], arrays={"on": np.array([True, False]), "w": np.ones(1)})

    strategy = coding(reliability=certain())

    def main(grid: Grid, context: Context) -> None:
        start = ArrayRecord({"on": Array(np.array([False, False])), "w": Array(np.zeros(1))})
        strategy.start(grid, start, num_rounds=1)

    server = ServerApp()
    server.main()(main)
    run_virtual(server, app, steady())
    assert strategy.history[0].n_arrived == 6
