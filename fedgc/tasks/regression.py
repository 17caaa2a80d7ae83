"""Multinomial logistic regression of digits: one gradient step per shard, so that theory can be held against it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord
from numpy.typing import NDArray

from fedgc.clients import ShardUpdate
from fedgc.tasks.digits_data import digits_data
from fedgc.tasks.partition import Partition, build_shards
from fedgc.tasks.union import one_step
from fedgc.validation import check_integer, check_positive

Matrix = NDArray[np.float32]


class DigitsRegressionTask:
    r"""Multinomial logistic regression of digits, trained by one full-batch gradient step per shard.

    With images :math:`x_i` (pixels and a one), labels :math:`y_i` as unit vectors, and
    :math:`p_i = \mathrm{softmax}(W^\top x_i)`, shard :math:`S` answers
    :math:`W - \eta \frac{1}{|S|} \sum_{i \in S} x_i (p_i - y_i)^\top`. The mean over all shards, weighted by their
    examples, is exactly a step of gradient descent on the mean cross-entropy of all training examples.

    Parameters
    ----------
    shards : int
        Number of data shards.
    partition : str
        How labels are spread over them, see :func:`fedgc.tasks.build_shards`.
    alpha : float
        Concentration of the partition ``"dirichlet"``.
    pieces : int
        Into how many each shard is divided.
    learning_rate : float
        Step size :math:`\eta`.
    seed : int
        Seed of the shards. Weights begin at zero, and the test set is the same for every seed.

    Notes
    -----
    The problem is convex, and its loss is that of the training examples, not of the test set: convergence results
    are about the former. All is single precision.

    Examples
    --------
    >>> task = DigitsRegressionTask(shards=4, partition="iid")
    >>> update = task.train_shard(0, task.initial_arrays(), ConfigRecord())
    >>> update.num_examples, update.arrays["weights"].shape
    (360, (65, 10))
    """

    def __init__(
        self,
        *,
        shards: int = 40,
        partition: Partition = "dirichlet",
        alpha: float = 0.3,
        pieces: int = 1,
        learning_rate: float = 1.0,
        seed: int = 0,
    ) -> None:
        self._learning_rate = np.float32(check_positive("task.learning_rate", learning_rate))
        data = digits_data()
        rng = np.random.default_rng([check_integer("seed", seed, low=0), 7])
        self.shards = build_shards(data.train_y, shards, partition, alpha, rng, pieces)
        self._x, self._y = _with_ones(data.train_x), data.train_y
        self._test = _with_ones(data.test_x), data.test_y
        self._parts = [(self._x[shard], np.eye(10, dtype=np.float32)[self._y[shard]]) for shard in self.shards]
        order = np.concatenate(self.shards)
        sizes = np.array(self.shard_examples)
        self._sorted_x, self._shard_of = self._x[order], np.repeat(np.arange(len(sizes)), sizes)
        self._own = np.arange(len(order)), self._y[order]
        self._there = np.arange(sizes.max()) < sizes[:, None]
        self._padded_x = np.zeros((len(sizes), 65, sizes.max()), dtype=np.float32)
        self._padded_x.transpose(0, 2, 1)[self._there] = self._sorted_x
        self._read: tuple[bytes, Matrix] | None = None

    @property
    def shard_examples(self) -> list[int]:
        """Number of training examples of each shard."""
        return [len(shard) for shard in self.shards]

    def initial_arrays(self) -> ArrayRecord:
        """Return weights of zero, shape (65, 10)."""
        return ArrayRecord({"weights": Array(np.zeros((65, 10), dtype=np.float32))})

    def train_shard(self, shard_id: int, arrays: ArrayRecord, config: ConfigRecord) -> ShardUpdate:
        """Return the weights after one gradient step on one shard, and the shard's loss before it."""
        return self.train_union([shard_id], arrays, config)

    def train_union(
        self, shard_ids: Sequence[int], arrays: ArrayRecord, config: ConfigRecord, share: float = 1.0
    ) -> ShardUpdate:
        """Return the weights after one gradient step on all examples of some shards, and their loss before it."""
        if not one_step(self.shard_examples, shard_ids, share):
            return ShardUpdate(0, arrays)
        weights = self._weights(arrays)
        parts = [self._parts[shard_id] for shard_id in shard_ids]
        x, y = parts[0] if len(parts) == 1 else (np.concatenate(both) for both in zip(*parts, strict=True))
        with np.errstate(over="ignore", invalid="ignore"):  # steps that are too large diverge, which shows in the loss
            logits = x @ weights
            logits -= logits.max(axis=1, keepdims=True)
            probabilities = np.exp(logits)
            sums = probabilities.sum(axis=1, keepdims=True)
            loss = (np.log(sums).sum() - np.vdot(logits, y)) / len(x)
            probabilities /= sums
            probabilities -= y
            after = weights - (self._learning_rate / np.float32(len(x))) * (x.T @ probabilities)
        return ShardUpdate(num_examples=len(x), arrays={"weights": after}, metrics={"train_loss": float(loss)})

    def evaluate(self, arrays: ArrayRecord) -> MetricRecord:
        """Return the accuracy on the test set, and the loss on all training examples: what is minimised."""
        weights = self._weights(arrays)
        x, y = self._test
        with np.errstate(over="ignore", invalid="ignore"):
            accuracy = float(((x @ weights).argmax(axis=1) == y).mean())
            logits = self._x @ weights
            logits -= logits.max(axis=1, keepdims=True)
            losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(logits)), self._y]
        return MetricRecord({"accuracy": accuracy, "loss": float(losses.mean(dtype=np.float64))})

    def initial_weights(self) -> NDArray[np.float32]:
        """Return weights of zero as a vector."""
        return np.zeros(650, dtype=np.float32)

    def as_arrays(self, weights: NDArray[np.float32]) -> ArrayRecord:
        """Return such a vector as the model's arrays."""
        return ArrayRecord({"weights": Array(weights.reshape(65, 10))})

    def shard_gradients(self, weights: NDArray[np.float32]) -> tuple[float, NDArray[np.float32]]:
        """Return the loss of all training examples, and each shard's part of its gradient, (n_shards, 650)."""
        loss, gap = self._gap(weights)
        # Padded to the largest shard, so that all shards are one batched product.
        padded = np.zeros((*self._there.shape, 10), dtype=np.float32)
        padded[self._there] = gap
        return loss, (self._padded_x @ padded).reshape(len(self.shards), -1)

    def weighted_gradients(
        self, weights: NDArray[np.float32], coverages: NDArray[np.float32]
    ) -> tuple[float, NDArray[np.float32]]:
        """Return the loss, and the sums of the shards' parts that each row of `coverages` asks for."""
        loss, gap = self._gap(weights)
        each = coverages[:, self._shard_of]
        scaled = (gap[:, None, :] * each.T[:, :, None]).reshape(len(gap), -1)
        product = (self._sorted_x.T @ scaled).reshape(65, len(coverages), 10)
        return loss, product.transpose(1, 0, 2).reshape(len(coverages), -1)

    def _gap(self, weights: NDArray[np.float32]) -> tuple[float, Matrix]:
        """Return the loss, and each example's probabilities less its label over the number of examples, by shard."""
        x, own = self._sorted_x, self._own
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            logits = x @ weights.reshape(65, 10)
            logits -= logits.max(axis=1, keepdims=True)
            right = logits[own]
            np.exp(logits, out=logits)
            sums = logits.sum(axis=1, keepdims=True)
            loss = float((np.log(sums[:, 0]) - right).mean(dtype=np.float64))
            logits /= sums
            logits[own] -= 1.0
            logits /= np.float32(len(x))
        return loss, logits

    def _weights(self, arrays: ArrayRecord) -> Matrix:
        """Return the weights as numpy has them; to read them anew for every shard would take as long as the step."""
        data = arrays["weights"].data
        if self._read is None or self._read[0] != data:
            self._read = data, arrays["weights"].numpy()
        return self._read[1]


def _with_ones(images: Matrix) -> Matrix:
    return np.hstack([images, np.ones((len(images), 1), dtype=np.float32)])
