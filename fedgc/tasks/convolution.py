"""A small convolutional network for digits: one gradient step per shard, on a loss that is not convex."""

from __future__ import annotations

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord
from numpy.typing import NDArray
from torch import nn

from fedgc.clients import ShardUpdate
from fedgc.tasks.digits_data import digits_data
from fedgc.tasks.partition import Partition, build_shards
from fedgc.tasks.torch_model import arrays_of, drawn_arrays, gradient_step
from fedgc.validation import check_integer, check_positive


class DigitsConvTask:
    """Digits with two convolutions and a linear layer, 6090 parameters, by one full-batch gradient step per shard.

    The mean over all shards, weighted by their examples, is a step of gradient descent on the mean cross-entropy of
    all training examples, as in :class:`fedgc.tasks.DigitsRegressionTask`; here that objective is not convex. There is
    no batch normalisation, with which a shard's gradient would depend on what else is in the shard.

    Parameters
    ----------
    shards : int
        Number of data shards.
    partition : str
        How labels are spread over them, see :func:`fedgc.tasks.build_shards`.
    alpha : float
        Concentration of the partition ``"dirichlet"``.
    learning_rate : float
        Step size.
    seed : int
        Seed of the shards and of the initial network. The test set is the same for every seed.
    """

    def __init__(
        self,
        *,
        shards: int = 40,
        partition: Partition = "dirichlet",
        alpha: float = 0.3,
        learning_rate: float = 0.3,
        seed: int = 0,
    ) -> None:
        self._learning_rate = check_positive("task.learning_rate", learning_rate)
        self._seed = check_integer("seed", seed, low=0)
        data = digits_data()
        self.shards = build_shards(data.train_y, shards, partition, alpha, np.random.default_rng([self._seed, 7]))
        self._train = torch.from_numpy(data.train_x).reshape(-1, 1, 8, 8), torch.from_numpy(data.train_y)
        self._test = torch.from_numpy(data.test_x).reshape(-1, 1, 8, 8), torch.from_numpy(data.test_y)
        self._parts = [(self._train[0][shard], self._train[1][shard]) for shard in self.shards]
        self._shard_of = np.empty(len(data.train_y), dtype=np.intp)
        for number, shard in enumerate(self.shards):
            self._shard_of[shard] = number
        self._network = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(128, 10),
        )

    @property
    def shard_examples(self) -> list[int]:
        """Number of training examples of each shard."""
        return [len(shard) for shard in self.shards]

    def initial_arrays(self) -> ArrayRecord:
        """Return the untrained network's arrays, drawn from the task's seed."""
        return drawn_arrays(self._network, self._seed)

    def train_shard(self, shard_id: int, arrays: ArrayRecord, config: ConfigRecord) -> ShardUpdate:
        """Return the arrays after one gradient step on one shard, and the shard's loss before it."""
        self._network.load_state_dict(arrays.to_torch_state_dict())
        loss = gradient_step(self._network, self._parts[shard_id], self._learning_rate)
        return ShardUpdate(len(self.shards[shard_id]), arrays_of(self._network), metrics={"train_loss": loss})

    def evaluate(self, arrays: ArrayRecord) -> MetricRecord:
        """Return the accuracy on the test set, and the loss on all training examples: what is minimised."""
        self._network.load_state_dict(arrays.to_torch_state_dict())
        with torch.no_grad():
            x, y = self._test
            accuracy = float((self._network(x).argmax(1) == y).float().mean())
            x, y = self._train
            return MetricRecord({"accuracy": accuracy, "loss": float(nn.functional.cross_entropy(self._network(x), y))})

    def initial_weights(self) -> NDArray[np.float32]:
        """Return the untrained network as a vector, (6090,)."""
        return np.concatenate([array.numpy().ravel() for array in self.initial_arrays().values()])

    def as_arrays(self, weights: NDArray[np.float32]) -> ArrayRecord:
        """Return such a vector as the network's arrays."""
        state = self._network.state_dict()
        ends = np.cumsum([value.numel() for value in state.values()])[:-1]
        parts = zip(state.items(), np.split(weights, ends), strict=True)
        return ArrayRecord(
            {name: Array(np.ascontiguousarray(part.reshape(value.shape))) for (name, value), part in parts}
        )

    def shard_gradients(self, weights: NDArray[np.float32]) -> tuple[float, NDArray[np.float32]]:
        """Return the loss of all training examples, and each shard's part of its gradient, (n_shards, 6090).

        Shard by shard: with all padded to the largest, as ``torch.func.vmap`` needs them, what is skewed takes longer.
        """
        parameters = self._set(weights)
        total, loss = len(self._train[1]), 0.0
        parts = np.empty((len(self.shards), weights.size), dtype=np.float32)
        for row, (x, y) in zip(parts, self._parts, strict=True):
            value = nn.functional.cross_entropy(self._network(x), y, reduction="sum") / total
            row[:] = _flat(torch.autograd.grad(value, parameters))
            loss += float(value.detach())
        return loss, parts

    def weighted_gradients(
        self, weights: NDArray[np.float32], coverages: NDArray[np.float32]
    ) -> tuple[float, NDArray[np.float32]]:
        """Return the loss, and the sums of the shards' parts that each row of `coverages` asks for."""
        parameters = self._set(weights)
        x, y = self._train
        each = nn.functional.cross_entropy(self._network(x), y, reduction="none")
        scales = torch.from_numpy(coverages[:, self._shard_of] / np.float32(len(y)))
        sums = [torch.autograd.grad(scale @ each, parameters, retain_graph=True) for scale in scales]
        return float(each.detach().mean()), np.array([_flat(one) for one in sums])

    def _set(self, weights: NDArray[np.float32]) -> list[nn.Parameter]:
        """Give the network these weights, and return what gradients are taken by: in the order of the vector."""
        parameters = list(self._network.parameters())
        nn.utils.vector_to_parameters(torch.from_numpy(weights), parameters)
        return parameters


def _flat(gradients: tuple[torch.Tensor, ...]) -> NDArray[np.float32]:
    flat: NDArray[np.float32] = torch.cat([one.reshape(-1) for one in gradients]).numpy()
    return flat
