"""The client: real training on real shards, and a mod that makes it do what the script says."""

import time

from fedgc.clients import ShardUpdate, gradient_coded
from flwr.app import ArrayRecord, ConfigRecord, Context, Message
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable

from fedgc.protocol import RECORD, SEGMENTS, SIMULATED_PROGRESS

from .script import FAILS, LATE, TOO_LATE, fate_of
from .task import train_shard

app = ClientApp()


def follow_the_script(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Raise, come too late, or get as far as it says."""
    config, assignment = message.content["config"], message.content[RECORD]
    fate = fate_of(config["case"], config["server-round"], message.content["place"]["client"])
    if fate == FAILS:
        raise RuntimeError("it is written")
    if fate == LATE:
        time.sleep(TOO_LATE)
    elif SEGMENTS in assignment:
        assignment[SIMULATED_PROGRESS] = fate
    return call_next(message, context)


@app.train(mods=[follow_the_script])
@gradient_coded()
def train(shard_id: int, arrays: ArrayRecord, config: ConfigRecord) -> ShardUpdate:
    """Train on one shard: all that decides about its update is in the arguments."""
    return train_shard(shard_id, arrays, config)
