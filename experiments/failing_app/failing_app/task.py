"""Multinomial regression of scikit-learn's digits in numpy, one step per shard and round: all shards take no time."""

from functools import cache

import numpy as np
from fedgc.clients import ShardUpdate
from flwr.app import Array, ArrayRecord
from numpy.typing import NDArray
from sklearn.datasets import load_digits

Vector = NDArray[np.float64]

#: So short that updates are about as alike as in the rounds before, from which it is predicted how alike they are.
STEP = 0.3
#: Examples of the test.
TEST = 397


@cache
def data(n_shards: int) -> tuple[Vector, NDArray[np.intp], list[NDArray[np.intp]], NDArray[np.intp]]:
    """Return images, labels, the examples of each shard, and those of the test."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(3).permutation(labels.size)
    test, train = order[:TEST], order[TEST:]
    return images / 16.0, labels, np.array_split(train, n_shards), test


def initial_arrays() -> ArrayRecord:
    """Return the model to start from."""
    return ArrayRecord({"weight": Array(np.zeros((64, 10))), "bias": Array(np.zeros(10))})


def delta(shard_id: int, n_shards: int, weight: Vector, bias: Vector) -> tuple[Vector, Vector, int]:
    """Return a shard's step and its number of examples."""
    images, labels, shards, _ = data(n_shards)
    x, y = images[shards[shard_id]], labels[shards[shard_id]]
    score = x @ weight + bias
    odds = np.exp(score - score.max(axis=1, keepdims=True))
    gap = odds / odds.sum(axis=1, keepdims=True)
    gap[np.arange(y.size), y] -= 1.0
    return -STEP / y.size * x.T @ gap, -STEP / y.size * gap.sum(axis=0), y.size


def train_shard(shard_id: int, n_shards: int, arrays: ArrayRecord) -> ShardUpdate:
    """Take the step on one shard."""
    weight, bias = arrays["weight"].numpy(), arrays["bias"].numpy()
    step, shift, size = delta(shard_id, n_shards, weight, bias)
    return ShardUpdate(size, arrays={"weight": weight + step, "bias": bias + shift})


def full_step(n_shards: int, arrays: ArrayRecord) -> Vector:
    """Return the step of all shards, each weighted by its examples: what the decoded one estimates."""
    weight, bias = arrays["weight"].numpy(), arrays["bias"].numpy()
    steps = [delta(shard, n_shards, weight, bias) for shard in range(n_shards)]
    total = sum(size for *_, size in steps)
    return sum(np.append(step.ravel(), shift) * (size / total) for step, shift, size in steps)


def flat(arrays: ArrayRecord) -> Vector:
    """Return the model as one vector."""
    return np.append(arrays["weight"].numpy().ravel(), arrays["bias"].numpy())


def accuracy(arrays: ArrayRecord) -> float:
    """Return the accuracy on the test set."""
    images, labels, _, test = data(1)
    score = images[test] @ arrays["weight"].numpy() + arrays["bias"].numpy()
    return float((score.argmax(axis=1) == labels[test]).mean())
