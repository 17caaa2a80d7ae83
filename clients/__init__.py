"""The client's side of fedgc, for the ClientApp."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fedgc.clients.flower_mods import beside_assignment
from fedgc.clients.in_a_row import RowOfShards, coded_in_a_row
from fedgc.clients.masks import pairwise_masks
from fedgc.clients.shard_sources import FolderShards, FunctionShards, MissingShardError, PartitionShards, ShardSource
from fedgc.clients.shard_store import ShardStore
from fedgc.clients.shard_update import ShardUpdate
from fedgc.clients.shards import gradient_coded

if TYPE_CHECKING:
    from fedgc.clients.stragglers import simulated_straggling
    from fedgc.clients.torch_row import torch_in_a_row
    from fedgc.clients.torch_state import torch_arrays
    from fedgc.clients.torch_update import torch_epochs, torch_gradient

__all__ = [
    "FolderShards",
    "FunctionShards",
    "MissingShardError",
    "PartitionShards",
    "RowOfShards",
    "ShardSource",
    "ShardStore",
    "ShardUpdate",
    "beside_assignment",
    "coded_in_a_row",
    "gradient_coded",
    "pairwise_masks",
    "simulated_straggling",
    "torch_arrays",
    "torch_epochs",
    "torch_gradient",
    "torch_in_a_row",
]

# Clients of numpy and scikit-learn models need not wait for torch to load, and those that straggle by themselves not
# for fleets and the runtime in virtual time. No module has the name of a function: the import system would put the
# module in the function's place.
_LOADED_WHEN_USED = {
    "simulated_straggling": "stragglers",
    "torch_arrays": "torch_state",
    "torch_epochs": "torch_update",
    "torch_gradient": "torch_update",
    "torch_in_a_row": "torch_row",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401
    if name not in _LOADED_WHEN_USED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LOADED_WHEN_USED[name]}"), name)
