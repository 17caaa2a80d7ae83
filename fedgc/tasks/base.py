"""What a task is: data in shards, a model, how one shard trains it, and how it is tested."""

from __future__ import annotations

from typing import Protocol

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord

from fedgc.clients import ShardUpdate


class Task(Protocol):
    """A training task, built for one seed.

    Shards and initial arrays depend on the task's options and its seed alone, so that all strategies meet the same.
    """

    @property
    def shard_examples(self) -> list[int]:
        """Number of training examples of each shard."""
        ...

    def initial_arrays(self) -> ArrayRecord:
        """Return the untrained model's arrays."""
        ...

    def train_shard(self, shard_id: int, arrays: ArrayRecord, config: ConfigRecord) -> ShardUpdate:
        """Train the global arrays on one shard and return what they became.

        What is random comes from ``config["shard-seed"]``, so that all holders of a shard compute the same.
        """
        ...

    def evaluate(self, arrays: ArrayRecord) -> MetricRecord:
        """Return ``accuracy``, on the test set, and ``loss``, of which the task says what it is measured on."""
        ...
