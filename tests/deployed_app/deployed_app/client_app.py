"""The client: shards that it was sent, or has itself."""

from pathlib import Path

from fedgc.clients import ShardStore, ShardUpdate, gradient_coded
from flwr.app import ArrayRecord, ConfigRecord, Context
from flwr.clientapp import ClientApp
from numpy.typing import NDArray

from .task import shard_of, train_shard

app = ClientApp()


class OwnShards:
    """The shards of scikit-learn's copy."""

    def load(self, shard_id: int) -> dict[str, NDArray]:
        """Return a shard's arrays."""
        return shard_of(shard_id)


def store_of(context: Context) -> ShardStore:
    """Return the node's own store."""
    partition = int(context.node_config["partition-id"])
    return ShardStore(Path(str(context.run_config["store"])) / f"node-{partition}", max_bytes=10**8)


@app.train()
@gradient_coded(source=OwnShards(), store=store_of)
def train(shard_id: int, arrays: ArrayRecord, config: ConfigRecord, shard: dict[str, NDArray]) -> ShardUpdate:
    """Train on one shard."""
    return train_shard(shard, arrays, config)
