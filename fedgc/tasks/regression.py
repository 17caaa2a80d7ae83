"""Multinomial logistic regression of digits: one gradient step per shard, so that theory can be held against it."""

from __future__ import annotations

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord
from numpy.typing import NDArray

from fedgc.clients import ShardUpdate
from fedgc.tasks.digits_data import digits_data
from fedgc.tasks.partition import Partition, build_shards
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
        learning_rate: float = 1.0,
        seed: int = 0,
    ) -> None:
        self._learning_rate = np.float32(check_positive("task.learning_rate", learning_rate))
        data = digits_data()
        rng = np.random.default_rng([check_integer("seed", seed, low=0), 7])
        self.shards = build_shards(data.train_y, shards, partition, alpha, rng)
        self._x, self._y = _with_ones(data.train_x), data.train_y
        self._test = _with_ones(data.test_x), data.test_y
        self._parts = [(self._x[shard], np.eye(10, dtype=np.float32)[self._y[shard]]) for shard in self.shards]
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
        weights = self._weights(arrays)
        x, y = self._parts[shard_id]
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

    def _weights(self, arrays: ArrayRecord) -> Matrix:
        """Return the weights as numpy has them; to read them anew for every shard would take as long as the step."""
        data = arrays["weights"].data
        if self._read is None or self._read[0] != data:
            self._read = data, arrays["weights"].numpy()
        return self._read[1]


def _with_ones(images: Matrix) -> Matrix:
    return np.hstack([images, np.ones((len(images), 1), dtype=np.float32)])
