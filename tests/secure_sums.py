"""Runs of which the server has only the sum."""

from __future__ import annotations

from typing import Any

import numpy as np
from fedgc.strategies import GradientCoding, SecureSum
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg, Result, Strategy

from fedgc.coherence import KnownCoherence
from fedgc.fleets import Fleet, build_fleet
from fedgc.simulation import VirtualRun
from fedgc.simulation.grid import FIRST_NODE_ID
from tests.apps import EXAMPLES, N_SHARDS, arrays_of, train

NODES = [FIRST_NODE_ID + client for client in range(6)]
ROUNDS = 3


def stragglers() -> Fleet:
    """Random times, and a last client that is often too late for deadlines of 4 seconds."""
    return build_fleet(
        {"model": "log-normal", "clients": 6, "median": [1.0] * 5 + [2.2], "sigma": 0.6, "dropout": 0.1}, seed=3
    )


def coding(strategy: Strategy | None = None, **options: Any) -> GradientCoding:
    inner = strategy or FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1)
    defaults = {"num_shards": N_SHARDS, "deadline": 4.0, "shard_examples": EXAMPLES, "decoder": "fixed"}
    return GradientCoding(inner, **{**defaults, "coherence": KnownCoherence(1.0, 0.3), **options})


def run(
    secure_sum: bool | SecureSum,
    app: ClientApp | None = None,
    fleet: Fleet | None = None,
    rounds: int = ROUNDS,
    **options: Any,
) -> tuple[Result, GradientCoding, VirtualRun]:
    strategy = coding(secure_sum=secure_sum, **options)
    result, trace = train(strategy, fleet or stragglers(), rounds=rounds, app=app)
    return result, strategy, trace


def assert_same(left: Result, right: Result, *, bits: bool = True) -> None:
    for name, value in arrays_of(right.arrays).items():
        assert arrays_of(left.arrays)[name].dtype == value.dtype
        np.testing.assert_allclose(arrays_of(left.arrays)[name], value, rtol=0, atol=0 if bits else 1e-6)
