"""The client's side of fedgc, for the ClientApp."""

from fedgc.clients.shards import ShardUpdate, gradient_coded
from fedgc.clients.stragglers import simulated_straggling

__all__ = ["ShardUpdate", "gradient_coded", "simulated_straggling"]
