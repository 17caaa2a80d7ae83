"""The client: the update of one shard, and a mod that lets the client straggle."""

from fedgc.clients import ShardUpdate, gradient_coded, simulated_straggling
from flwr.app import ArrayRecord, ConfigRecord, Context, Message
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable

from .task import fleet_of, task_of

app = ClientApp()


def straggle(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Take as long as this client of the fleet would, at the speed that the run config asks for."""
    config = context.run_config
    mod = simulated_straggling(fleet_of(config), seconds_per_second=float(config["seconds-per-second"]))
    return mod(message, context, call_next)


@app.train(mods=[straggle])
@gradient_coded()
def train(shard_id: int, arrays: ArrayRecord, config: ConfigRecord, context: Context) -> ShardUpdate:
    """Train on one shard, with the very function that the quickstart uses."""
    return task_of(context.run_config).train_shard(shard_id, arrays, config)
