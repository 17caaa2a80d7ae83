"""The clients: real training on real shards, and a mod that makes one of them do harm."""

import numpy as np
from fedgc.clients import ShardUpdate, gradient_coded
from flwr.app import ArrayRecord, ConfigRecord, Context, Message
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable

from .attacks import ATTACKS
from .task import task_of

app = ClientApp()


def do_harm(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Make of the reply what is due in this round, if this is the client that does harm."""
    reply, server_round = call_next(message, context), int(message.content["config"]["server-round"])
    attacks = str(context.run_config["attacks"]).split(",")
    if context.node_config["partition-id"] != context.run_config["hostile"] or not 0 < server_round <= len(attacks):
        return reply
    if attack := attacks[server_round - 1].strip():
        ATTACKS[attack](reply, np.random.default_rng(server_round))
    return reply


@app.train(mods=[do_harm])
@gradient_coded()
def train(shard_id: int, arrays: ArrayRecord, config: ConfigRecord, context: Context) -> ShardUpdate:
    """Train on one shard."""
    return task_of(context.run_config).train_shard(shard_id, arrays, config)
