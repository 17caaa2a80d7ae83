"""A fleet of honest clients with a hostile one among them, and the app that it attacks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from fedgc.strategies import GradientCoding
from flwr.serverapp.strategy import FedAvg

from tests.apps import EXAMPLES, N_SHARDS

APP = Path(__file__).parent / "hostile_app"
sys.path += [str(APP), str(Path(__file__).parents[1] / "experiments" / "deployment")]
from hostile_app import client_app, server_app  # noqa: E402
from hostile_app.attacks import ATTACKS, PATH  # noqa: E402
from loopback_fleet import loopback_fleet  # noqa: E402

__all__ = ["APP", "ATTACKS", "PATH", "client_app", "loopback_fleet", "server_app"]
HOSTILE = 8
N_CLIENTS, NODE = HOSTILE + 1, 100 + HOSTILE
ONE = {"min_train_nodes": 1, "min_available_nodes": 1}


def coding(inner: FedAvg | None = None, **options: Any) -> GradientCoding:
    inner = inner or FedAvg(fraction_evaluate=0.0, **ONE)
    known = {"deadline": 50.0, "load": 3, "early_end": False, "shard_examples": EXAMPLES}
    return GradientCoding(inner, **{"num_shards": N_SHARDS, **known, **options})
