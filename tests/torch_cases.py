"""What tests of torch models share."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from fedgc.clients import ShardUpdate
from flwr.app import ConfigRecord
from torch import nn

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
