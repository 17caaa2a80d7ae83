"""Clients that train on from shard to shard."""

from __future__ import annotations

import numpy as np
from fedgc.clients import RowOfShards, ShardUpdate, coded_in_a_row
from fedgc.clients.in_a_row import piece_sizes
from flwr.app import ArrayRecord, ConfigRecord
from flwr.clientapp import ClientApp

PIECES = 3
#: Examples of four shards: numbers that tell them apart, of which one shard has fewer than pieces.
EXAMPLES = [np.arange(8), 100 + np.arange(7), 200 + np.arange(2), 300 + np.arange(9)]
SIZES = [part for own in EXAMPLES for part in piece_sizes(own.size, PIECES)]


def row_app(n_shards: int = 4, pieces: int = PIECES) -> ClientApp:
    """Training of which every example moves the bias by one, and the weight by what it is."""
    app = ClientApp()

    @app.train()
    @coded_in_a_row(num_shards=n_shards, pieces=pieces)
    def train_row(row: RowOfShards, arrays: ArrayRecord, config: ConfigRecord) -> ShardUpdate:
        values = {name: array.numpy().copy() for name, array in arrays.items()}
        for batch in row.batches(EXAMPLES.__getitem__, size=4):
            values["bias"] += batch.size
            values["weight"] += batch.sum()
        return ShardUpdate(row.num_examples, values, metrics={"loss": 1.0})

    return app
