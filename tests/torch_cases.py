"""What tests of torch models share."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from fedgc.clients import ShardUpdate
from flwr.app import ConfigRecord
from torch import Tensor, nn

CONFIG = ConfigRecord({"shard-seed": 11})
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9)


def made(make: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """Return a network whose weights come from the seed."""
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(seed)
        return make()


def deltas(update: ShardUpdate) -> dict[str, Any]:
    assert isinstance(update.delta, dict)
    return update.delta


def small_net() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 1))


def numbers(rows: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    return tuple(torch.tensor(rng.normal(size=(rows, n)), dtype=torch.float32) for n in (3, 1))  # type: ignore[return-value]


def in_batches(data: tuple[Tensor, Tensor], size: int) -> list[Any]:
    return list(zip(*(part.split(size) for part in data), strict=True))
