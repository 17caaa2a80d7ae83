"""Measure the residual error: compare a round's aggregate with the one that every shard would have given."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord
from numpy.typing import NDArray

from fedgc.clients import ShardUpdate
from fedgc.protocol import SERVER_ROUND, SHARD_SEED, shard_seed
from fedgc.updates import Update, add_scaled, difference, squared_norm, zero_update

Trainer = Callable[[int, ArrayRecord, ConfigRecord], ShardUpdate]


def remember_round(trainer: Trainer) -> Trainer:
    """Return `trainer` with a memory of one round: the same shard, model and seed are computed once.

    In a simulation all holders of a shard run in one process and compute the same update, and so does the audit. This
    saves real time only; virtual time comes from the fleet.
    """
    memory: dict[tuple[int, object], ShardUpdate] = {}
    model: list[bytes] = []

    def train(shard_id: int, arrays: ArrayRecord, config: ConfigRecord) -> ShardUpdate:
        data = [array.data for array in arrays.values()]
        if model != data:
            memory.clear()
            model[:] = data
        key = shard_id, config[SHARD_SEED]
        if key not in memory:
            memory[key] = trainer(shard_id, arrays, config)
        return memory[key]

    return train


def measured_residual_error(
    trainer: Trainer,
    shard_examples: list[int],
    before: ArrayRecord,
    after: ArrayRecord,
    *,
    server_round: int,
    run_seed: int,
) -> float:
    """Return ``|u - g|^2 / |g|^2`` for the update u that was applied and the full aggregate g.

    It is NaN if g is zero and u is not.

    Parameters
    ----------
    trainer : callable
        The update of one shard.
    shard_examples : list of int
        Number of examples of each shard.
    before, after : ArrayRecord
        Global arrays before and after the round, moved by plain averaging.
    server_round, run_seed : int
        What the clients' shard seeds were derived from.
    """
    old = {name: array.numpy() for name, array in before.items()}
    full: Update = zero_update(old)
    total = sum(shard_examples)
    for shard_id, count in enumerate(shard_examples):
        config = ConfigRecord({SERVER_ROUND: server_round, SHARD_SEED: shard_seed(run_seed, server_round, shard_id)})
        update = trainer(shard_id, before, config)
        if update.arrays is None:
            raise TypeError("the audit needs a train function that returns arrays; got a delta")
        new = {name: _to_numpy(value) for name, value in update.arrays.items()}
        add_scaled(full, count / total, difference(new, old))
    applied = difference({name: array.numpy() for name, array in after.items()}, old)
    gap = {name: applied[name] - full[name] for name in full}
    size, missed = squared_norm(full), squared_norm(gap)
    return missed / size if size else 0.0 if missed == 0.0 else math.nan


def _to_numpy(value: Any) -> NDArray[Any]:  # noqa: ANN401  (numpy's, Flower's or torch's)
    return np.asarray(value.numpy() if hasattr(value, "numpy") else value)
