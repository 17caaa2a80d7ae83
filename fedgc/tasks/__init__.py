"""Training tasks on real data: what a shard is, how it is trained on, how the model is tested."""

from fedgc.tasks.digits import DigitsTask
from fedgc.tasks.partition import dirichlet_shards

__all__ = ["DigitsTask", "dirichlet_shards"]
