"""The client's side of fedgc, for the ClientApp."""

from fedgc.clients.shards import ShardUpdate, gradient_coded

__all__ = ["ShardUpdate", "gradient_coded"]
