"""Multinomial regression of scikit-learn's digits, in numpy: nothing that takes long to load in a client's process."""

from functools import cache

import numpy as np
from fedgc.clients import ShardUpdate
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from fedgc.protocol import SHARD_SEED

from .script import N_SHARDS, SEED

STEP, BATCH = 0.3, 16


@cache
def data() -> tuple[NDArray[np.float32], NDArray[np.intp], list[NDArray[np.intp]], NDArray[np.intp]]:
    """Return images, labels, the examples of each shard (skewed labels, unequal sizes), and those of the test."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(SEED).permutation(labels.size)
    test, train = order[:300], order[300:]
    train = train[np.argsort(labels[train] // 2, kind="stable")]
    ends = np.cumsum(np.linspace(1.0, 3.0, N_SHARDS) / (2.0 * N_SHARDS) * train.size).astype(int)[:-1]
    return (images / 16.0).astype(np.float32), labels, np.split(train, ends), test


def shard_examples() -> list[int]:
    """Return the number of examples of each shard."""
    return [shard.size for shard in data()[2]]


def initial_arrays() -> ArrayRecord:
    """Return the model to start from."""
    weight = np.zeros((64, 10), dtype=np.float32)
    return ArrayRecord({"weight": Array(weight), "bias": Array(np.zeros(10, dtype=np.float32))})


def train_shard(shard_id: int, arrays: ArrayRecord, config: ConfigRecord) -> ShardUpdate:
    """Pass over a shard once, in an order that depends on run, round and shard."""
    x, y, shards, _ = data()
    weight, bias = arrays["weight"].numpy().copy(), arrays["bias"].numpy().copy()
    order = np.random.default_rng(config[SHARD_SEED]).permutation(shards[shard_id])
    for batch in np.array_split(order, -(-order.size // BATCH)):
        gap = _softmax(x[batch] @ weight + bias)
        gap[np.arange(batch.size), y[batch]] -= 1.0
        weight -= STEP / batch.size * x[batch].T @ gap
        bias -= STEP / batch.size * gap.sum(axis=0)
    return ShardUpdate(order.size, arrays={"weight": weight, "bias": bias})


def evaluate(arrays: ArrayRecord) -> MetricRecord:
    """Return the accuracy on the test set."""
    x, y, _, test = data()
    score = x[test] @ arrays["weight"].numpy() + arrays["bias"].numpy()
    return MetricRecord({"accuracy": float((score.argmax(axis=1) == y[test]).mean())})


def _softmax(score: NDArray[np.float32]) -> NDArray[np.float32]:
    odds = np.exp(score - score.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)
