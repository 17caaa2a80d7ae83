"""Multinomial regression of scikit-learn's digits, in numpy: nothing that takes long to load in a client's process."""

from functools import cache

import numpy as np
from fedgc.clients import ShardUpdate
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord
from numpy.typing import NDArray

from fedgc.protocol import SHARD_SEED

N_SHARDS, STEP, BATCH, EPOCHS = 16, 0.5, 16, 4


@cache
def data() -> tuple[NDArray[np.float64], NDArray[np.intp], list[NDArray[np.intp]], NDArray[np.intp]]:
    """Return images, labels, the examples of each shard (two labels are rare in each), and those of the test."""
    from sklearn.datasets import load_digits  # noqa: PLC0415  (a client that is sent its shards needs none)

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(3).permutation(labels.size)
    test, train = order[:600], order[600:]
    shards = [train[shard::N_SHARDS] for shard in range(N_SHARDS)]
    skewed = [rows[(labels[rows] // 2 != shard % 5) | (rows % 4 == 0)] for shard, rows in enumerate(shards)]
    return images / 16.0, labels, skewed, test


def shard_of(shard_id: int) -> dict[str, NDArray]:
    """Return a shard's arrays."""
    x, y, shards, _ = data()
    return {"x": x[shards[shard_id]], "y": y[shards[shard_id]]}


def shard_examples() -> list[int]:
    """Return the number of examples of each shard."""
    return [shard.size for shard in data()[2]]


def initial_arrays() -> ArrayRecord:
    """Return the model to start from."""
    return ArrayRecord({"weight": Array(np.zeros((64, 10))), "bias": Array(np.zeros(10))})


def train_shard(shard: dict[str, NDArray], arrays: ArrayRecord, config: ConfigRecord) -> ShardUpdate:
    """Pass over a shard some times, in orders that depend on run, round and shard."""
    x, y = shard["x"], shard["y"]
    weight, bias = arrays["weight"].numpy().copy(), arrays["bias"].numpy().copy()
    rng = np.random.default_rng(config[SHARD_SEED])
    for _ in range(EPOCHS):
        order = rng.permutation(y.size)
        for batch in np.array_split(order, -(-order.size // BATCH)):
            score = x[batch] @ weight + bias
            odds = np.exp(score - score.max(axis=1, keepdims=True))
            gap = odds / odds.sum(axis=1, keepdims=True)
            gap[np.arange(batch.size), y[batch]] -= 1.0
            weight -= STEP / batch.size * x[batch].T @ gap
            bias -= STEP / batch.size * gap.sum(axis=0)
    return ShardUpdate(y.size, arrays={"weight": weight, "bias": bias})


def evaluate(arrays: ArrayRecord) -> MetricRecord:
    """Return the accuracy on the test set."""
    x, y, _, test = data()
    score = x[test] @ arrays["weight"].numpy() + arrays["bias"].numpy()
    return MetricRecord({"accuracy": float((score.argmax(axis=1) == y[test]).mean())})
