"""A user's app under mypy --strict: what is installed must tell its types, or the error below is none."""

from fedgc.clients import ShardUpdate, gradient_coded
from fedgc.strategies import GradientCoding
from flwr.app import ArrayRecord, ConfigRecord
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
@gradient_coded(num_shards=4)
def train(shard_id: int, arrays: ArrayRecord, config: ConfigRecord) -> ShardUpdate:
    """Leave the model as it is."""
    return ShardUpdate(1, delta={name: 0 * array.numpy() for name, array in arrays.items()})


strategy = GradientCoding(num_shards="four", deadline=30.0)  # type: ignore[arg-type]
