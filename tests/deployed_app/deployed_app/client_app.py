"""The client: shards that it was sent, or has itself."""

import time
from pathlib import Path

from fedgc.clients import ShardStore, ShardUpdate, gradient_coded
from flwr.app import ArrayRecord, ConfigRecord, Context, Message
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable
from numpy.typing import NDArray

from .task import shard_of, train_shard

#: Seconds: longer than a disturbed round lasts.
LONG = 60.0


def killed_at_work(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Let a node that is to be killed in this round still work when the kill comes, however late it is set off."""
    config = message.content.config_records.get("config", ConfigRecord())
    killed, server_round = config.get("killed"), config.get("server-round")
    if isinstance(killed, list) and isinstance(server_round, int):
        its_turn = killed[server_round - 1 : server_round] == [context.node_config["partition-id"]]
        time.sleep(LONG if its_turn else 0.0)
    return call_next(message, context)


app = ClientApp(mods=[killed_at_work])


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
