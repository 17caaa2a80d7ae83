"""Handwritten digits: 1797 real 8 x 8 images that ship with scikit-learn, and a small network."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import cast

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord
from torch import nn

from fedgc.clients import RowOfShards, ShardUpdate
from fedgc.protocol import SHARD_SEED
from fedgc.tasks.digits_data import digits_data
from fedgc.tasks.partition import Partition, build_shards
from fedgc.tasks.torch_model import arrays_of, drawn_arrays, gradient_step, proximal_of
from fedgc.tasks.union import part_of
from fedgc.validation import check_integer, check_positive


class DigitsTask:
    """Classification of digits with a small network, trained by SGD on one shard at a time.

    Parameters
    ----------
    shards : int
        Number of data shards.
    partition : str
        How labels are spread over them, see :func:`fedgc.tasks.build_shards`.
    alpha : float
        Of the partition ``"dirichlet"``: concentration of the Dirichlet distribution by which each class is spread;
        the smaller, the more the labels of a shard are skewed.
    pieces : int
        Into how many each shard is divided.
    hidden : int
        Width of the hidden layer.
    local_epochs, batch_size, learning_rate
        SGD on one shard: passes over it, examples per step, step size.
    seed : int
        Seed of the shards and of the initial network. The test set is the same for every seed: a stratified fifth.
    """

    def __init__(
        self,
        *,
        shards: int = 40,
        partition: Partition = "dirichlet",
        alpha: float = 0.3,
        pieces: int = 1,
        hidden: int = 32,
        local_epochs: int = 1,
        batch_size: int = 16,
        learning_rate: float = 0.1,
        seed: int = 0,
    ) -> None:
        check_integer("task.shards", shards, low=1, high=500)
        self._hidden = check_integer("task.hidden", hidden, low=1)
        self._local_epochs = check_integer("task.local_epochs", local_epochs, low=1)
        self._batch_size = check_integer("task.batch_size", batch_size, low=1)
        self._learning_rate = check_positive("task.learning_rate", learning_rate)
        self._seed = check_integer("seed", seed, low=0)
        data = digits_data()
        self.shards = build_shards(
            data.train_y, shards, partition, alpha, np.random.default_rng([self._seed, 7]), pieces
        )
        self._train = torch.from_numpy(data.train_x), torch.from_numpy(data.train_y)
        self._test = torch.from_numpy(data.test_x), torch.from_numpy(data.test_y)
        self._loss = nn.CrossEntropyLoss()
        self._network = nn.Sequential(nn.Linear(64, self._hidden), nn.ReLU(), nn.Linear(self._hidden, 10))

    @property
    def shard_examples(self) -> list[int]:
        """Number of training examples of each shard."""
        return [len(shard) for shard in self.shards]

    def initial_arrays(self) -> ArrayRecord:
        """Return the untrained network's arrays, drawn from the task's seed."""
        return drawn_arrays(self._network, self._seed)

    def train_shard(self, shard_id: int, arrays: ArrayRecord, config: ConfigRecord) -> ShardUpdate:
        """Train the global arrays on one shard and return what they became."""
        return self.train_union([shard_id], arrays, config)

    def train_union(
        self, shard_ids: Sequence[int], arrays: ArrayRecord, config: ConfigRecord, share: float = 1.0
    ) -> ShardUpdate:
        """Train the global arrays on all examples of some shards and return what they became."""
        examples = np.concatenate([self.shards[shard_id] for shard_id in shard_ids])
        x, y = (part[examples] for part in self._train)
        network = self._network
        network.load_state_dict(arrays.to_torch_state_dict())
        shuffle = torch.Generator().manual_seed(int(cast(int, config[SHARD_SEED])))
        epochs = (torch.randperm(len(y), generator=shuffle) for _ in range(self._local_epochs))
        batches = (batch for order in epochs for batch in order.split(self._batch_size))  # type: ignore[no-untyped-call]
        proximal = proximal_of(network, config)
        loss_sum, seen = 0.0, 0
        for batch in islice(batches, part_of(self._local_epochs * -(-len(y) // self._batch_size), share)):
            loss_sum += gradient_step(network, (x[batch], y[batch]), self._learning_rate, proximal) * len(batch)
            seen += len(batch)
        metrics = {"train_loss": loss_sum / seen} if seen else {}
        return ShardUpdate(num_examples=len(y) if seen else 0, arrays=arrays_of(network), metrics=metrics)

    def train_row(self, row: RowOfShards, arrays: ArrayRecord, config: ConfigRecord) -> ShardUpdate:
        """Train the global arrays on a row of shards and return what they became."""
        network, (x, y), size = self._network, self._train, self._batch_size
        network.load_state_dict(arrays.to_torch_state_dict())
        proximal = proximal_of(network, config)
        loss_sum, seen = 0.0, 0
        for batch in row.batches(self.shards.__getitem__, size=size, epochs=self._local_epochs):
            examples = torch.from_numpy(batch)
            rate = self._learning_rate * batch.size / size
            loss_sum += gradient_step(network, (x[examples], y[examples]), rate, proximal) * batch.size
            seen += batch.size
        metrics = {"train_loss": loss_sum / seen} if seen else {}
        return ShardUpdate(row.num_examples, arrays=arrays_of(network), metrics=metrics)

    def evaluate(self, arrays: ArrayRecord) -> MetricRecord:
        """Return accuracy and loss on the test set."""
        network = self._network
        network.load_state_dict(arrays.to_torch_state_dict())
        x, y = self._test
        with torch.no_grad():
            logits = network(x)
            accuracy = float((logits.argmax(1) == y).float().mean())
            return MetricRecord({"accuracy": accuracy, "loss": float(self._loss(logits, y))})
