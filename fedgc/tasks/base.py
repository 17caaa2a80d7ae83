"""What a task is: data in shards, a model, how one shard trains it, and how it is tested."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord
from numpy.typing import NDArray

from fedgc.clients import RowOfShards, ShardUpdate


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

    def train_union(
        self, shard_ids: Sequence[int], arrays: ArrayRecord, config: ConfigRecord, share: float = 1.0
    ) -> ShardUpdate:
        """Train the global arrays on all examples of some shards as one data set, as a client does with its own data.

        With a `share` below one the first part of the steps is taken, rounded down; of none, no examples are reported.
        """
        ...

    def evaluate(self, arrays: ArrayRecord) -> MetricRecord:
        """Return ``accuracy``, on the test set, and ``loss``, of which the task says what it is measured on."""
        ...


@runtime_checkable
class RowTask(Task, Protocol):
    """A task whose clients may also train on from shard to shard."""

    def train_row(self, row: RowOfShards, arrays: ArrayRecord, config: ConfigRecord) -> ShardUpdate:
        """Train the global arrays on a row of shards and return what they became."""
        ...


class GradientTask(Task, Protocol):
    """A task whose shards each take one gradient step, so that a round is a step along a sum of shards' gradients."""

    def initial_weights(self) -> NDArray[np.float32]:
        """Return the untrained model as a vector, (n_parameters,)."""
        ...

    def as_arrays(self, weights: NDArray[np.float32]) -> ArrayRecord:
        """Return such a vector as the model's arrays."""
        ...

    def shard_gradients(self, weights: NDArray[np.float32]) -> tuple[float, NDArray[np.float32]]:
        """Return the loss of all training examples, and each shard's part of its gradient, (n_shards, n_parameters).

        The parts add up to the gradient: they are weighted by the shards' numbers of examples.
        """
        ...

    def weighted_gradients(
        self, weights: NDArray[np.float32], coverages: NDArray[np.float32]
    ) -> tuple[float, NDArray[np.float32]]:
        """Return the loss, and ``coverages @ parts`` for the parts above, without forming these.

        `coverages` is (k, n_shards), and the result (k, n_parameters).
        """
        ...
