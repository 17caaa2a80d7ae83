"""Measure the residual error: compare a round's aggregate with the one that every shard would have given."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord
from numpy.typing import NDArray

from fedgc.clients import ShardUpdate
from fedgc.protocol import SERVER_ROUND, SHARD_SEED, shard_seed
from fedgc.updates import Update, add_scaled, difference, squared_norm, zero_update

ShardTrainer = Callable[[int, ArrayRecord, ConfigRecord], ShardUpdate]
#: Shards whose examples are one data set, global arrays, config, and the share of the steps that is done.
UnionTrainer = Callable[[Sequence[int], ArrayRecord, ConfigRecord, float], ShardUpdate]


def remember_round(trainer: UnionTrainer) -> UnionTrainer:
    """Return `trainer` with a memory of one round: the same shards, model and seed are computed once.

    In a simulation all holders of a shard run in one process and compute the same update, and so does the audit. This
    saves real time only; virtual time comes from the fleet.
    """
    memory: dict[tuple[object, ...], ShardUpdate] = {}
    model: list[bytes] = []

    def train(shard_ids: Sequence[int], arrays: ArrayRecord, config: ConfigRecord, share: float) -> ShardUpdate:
        data = [array.data for array in arrays.values()]
        if model != data:
            memory.clear()
            model[:] = data
        key = tuple(shard_ids), config[SHARD_SEED], share
        if key not in memory:
            memory[key] = trainer(shard_ids, arrays, config, share)
        return memory[key]

    return train


def shard_trainer(trainer: UnionTrainer) -> ShardTrainer:
    """Return what trains one shard by itself."""

    def train(shard_id: int, arrays: ArrayRecord, config: ConfigRecord) -> ShardUpdate:
        return trainer((shard_id,), arrays, config, 1.0)

    return train


def measured_residual_error(
    trainer: UnionTrainer,
    parts: Sequence[Sequence[int]],
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
        The update of all examples of some shards.
    parts : sequence of sequence of int
        The shards of each update: every shard by itself, or all of a client's as one.
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
    for part in parts:
        seed = shard_seed(run_seed, server_round, part[0])
        count = sum(shard_examples[shard_id] for shard_id in part)
        update = trainer(part, before, ConfigRecord({SERVER_ROUND: server_round, SHARD_SEED: seed}), 1.0)
        add_scaled(full, count / total, difference(trained_arrays(update), old))
    applied = difference({name: array.numpy() for name, array in after.items()}, old)
    gap = {name: applied[name] - full[name] for name in full}
    size, missed = squared_norm(full), squared_norm(gap)
    return missed / size if size else 0.0 if missed == 0.0 else math.nan


def trained_arrays(update: ShardUpdate) -> dict[str, NDArray[Any]]:
    """Return the arrays of an update, by name, whatever library they are of."""
    if update.arrays is None:
        raise TypeError("experiments need a train function that returns arrays; got a delta")
    return {name: _to_numpy(value) for name, value in update.arrays.items()}


def _to_numpy(value: Any) -> NDArray[Any]:  # noqa: ANN401  (numpy's, Flower's or torch's)
    return np.asarray(value.numpy() if hasattr(value, "numpy") else value)
