"""What tests of the strategy on the embedded runtime share."""

from __future__ import annotations

from typing import Any

from fedgc.strategies import GradientCoding
from flwr.serverapp.strategy import FedAvg, Strategy

from fedgc.reliability import ReliabilityPosterior
from tests.apps import EXAMPLES, N_SHARDS


def coding(strategy: Strategy | None = None, **options: Any) -> GradientCoding:
    inner = strategy if strategy is not None else FedAvg(fraction_evaluate=0.0)
    return GradientCoding(inner, **{"num_shards": N_SHARDS, "deadline": 10.0, "shard_examples": EXAMPLES, **options})


def certain() -> Any:
    """A posterior that is (nearly) sure of every client, so that a complete round decodes to the exact aggregate."""
    return ReliabilityPosterior(prior_arrivals=1e15, prior_misses=1e-6)
