"""The client: it fails in some rounds, at random, and trains in the others."""

import numpy as np
from fedgc.clients import ShardUpdate, gradient_coded
from flwr.app import ArrayRecord, ConfigRecord, Context, Message
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable

from .task import train_shard

app = ClientApp()


def fail_at_random(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Raise with the probability that the run config tells; everyone answers before the first round."""
    config, server_round = context.run_config, int(message.content["config"].get("server-round", 0))
    rng = np.random.default_rng((int(config["seed"]), server_round, int(context.node_config["partition-id"])))
    if server_round > 0 and rng.random() < float(config["fail-prob"]):
        raise RuntimeError("it failed")
    return call_next(message, context)


@app.train(mods=[fail_at_random])
@gradient_coded()
def train(shard_id: int, arrays: ArrayRecord, config: ConfigRecord, context: Context) -> ShardUpdate:
    """Train on one shard."""
    return train_shard(shard_id, int(context.run_config["num-clients"]), arrays)
