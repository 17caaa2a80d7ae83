"""Logistic regression on digits, one model in single precision: what a sequence of coverages comes to in rounds."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from fedgc.coherence import CoherenceEstimate
from fedgc.gram import GramModel

Vector = NDArray[np.float64]

CLASSES = 10


class DigitsTask:
    """Multinomial logistic regression by gradient descent on shards of equal size.

    Parameters
    ----------
    n_shards : int
        Number of shards.
    mixed : bool
        Whether shards hold shuffled examples, or examples sorted by label.
    """

    def __init__(self, n_shards: int, *, mixed: bool) -> None:
        images, labels = load_digits(return_X_y=True)
        order = np.random.default_rng(7).permutation(labels.size)
        if not mixed:
            order = order[np.argsort(labels[order], kind="stable")]
        self.n_shards, self.size = n_shards, labels.size
        # Examples in columns: sums over the ten classes then run along the slow axis, which is four times faster.
        self.x = np.vstack([images.T / 16.0, np.ones(labels.size)])[:, order].astype(np.float32)
        self._by_row = np.ascontiguousarray(self.x.T)
        self._labels = labels[order].astype(np.intp)
        self._own = self._labels * labels.size + np.arange(labels.size)
        self._shard = np.arange(labels.size) * n_shards // labels.size

    def gram(self) -> GramModel:
        """Return the Gram model with the coherence of the shards' gradients at the start."""
        gap = np.full((CLASSES, self.size), 1.0 / CLASSES)
        gap.ravel()[self._own] -= 1.0
        shards = [self._shard == j for j in range(self.n_shards)]
        gradients = np.array([(gap[:, rows] @ self._by_row[rows]).ravel() / rows.sum() for rows in shards])
        measured = CoherenceEstimate().update((gradients**2).sum(axis=1), float((gradients.sum(axis=0) ** 2).sum()))
        return measured.gram([self.n_shards * rows.mean() for rows in shards])

    def losses(self, coverage: Callable[[int], Vector], step: float) -> Iterator[float]:
        """Yield the loss before each round without end; `coverage` gives each round's, (n_shards,)."""
        weights = np.zeros((CLASSES, self.x.shape[0]), dtype=np.float32)
        server_round = 0
        while True:
            score = weights @ self.x
            score -= score.max(axis=0)
            own = score.ravel()[self._own]
            np.exp(score, out=score)
            total = score.sum(axis=0)
            yield float((np.log(total) - own).mean(dtype=np.float64))
            factor = (coverage(server_round) * (step / self.size)).astype(np.float32)[self._shard]
            score *= factor / total
            score.ravel()[self._own] -= factor
            weights -= score @ self._by_row
            server_round += 1

    def descent(self, step: float, rounds: int) -> Vector:
        """Return the losses of gradient descent without stragglers before and after so many rounds."""
        ones = np.ones(self.n_shards)
        return self.first_losses(lambda _: ones, step, rounds)

    def first_losses(self, coverage: Callable[[int], Vector], step: float, rounds: int) -> Vector:
        """Return the losses before and after so many rounds, (rounds + 1,)."""
        return np.fromiter(self.losses(coverage, step), dtype=np.float64, count=rounds + 1)

    def rounds_to(self, target: float, coverage: Callable[[int], Vector], step: float, longest: int) -> int:
        """Return the rounds until the loss is at most `target`, or `longest` if it takes more."""
        for server_round, loss in enumerate(self.losses(coverage, step)):
            if loss <= target or server_round == longest:
                return server_round
        raise AssertionError
