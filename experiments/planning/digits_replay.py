"""Multinomial regression of scikit-learn's digits, trained with coverages that came about elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

Vector = NDArray[np.float64]

#: From 12.5 on plain gradient descent diverges, and just below it is best, so that no choice has its best step outside.
#: Full descent bears steps up to about 13, but there runs with stragglers are erratic: times to target then scatter by
#: half over eight runs, and nothing can be told from them.
STEPS = np.array([2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0])

#: Descent whose loss has grown to this has failed.
_FAILED = 50.0


class Digits:
    """Multinomial regression on digits, shards sorted by label; full gradients of all shards at once.

    Parameters
    ----------
    n_shards : int
        Number of shards.
    dtype : type
        Precision of the arithmetic: single for times to target, double to compare with a run to the last digits.

    Attributes
    ----------
    x, y : ndarray, shapes (n_examples, 65) and (n_examples, 10)
        Images with a column of ones, and labels as unit vectors.
    of : ndarray of int, shape (n_examples,)
        The shard of each example.
    """

    def __init__(self, n_shards: int, dtype: type = np.float32) -> None:
        images, labels = load_digits(return_X_y=True)
        order = np.random.default_rng(0).permutation(labels.size)[:1437]
        order = order[np.argsort(labels[order], kind="stable")]
        self.x = np.c_[images[order] / 16.0, np.ones(order.size)].astype(dtype)
        self.y = np.eye(10, dtype=dtype)[labels[order]]
        self.of = np.repeat(np.arange(n_shards), [part.size for part in np.array_split(order, n_shards)])

    def losses(self, coverage: Vector, steps: Vector, *, memory: bool = False) -> Iterator[Vector]:
        """Yield the loss of every step size before the first round, before the second, and so on without end.

        Parameters
        ----------
        coverage : ndarray, shape (n_rounds, n_shards)
            How often each shard's update counts in each round; after the last comes the first.
        steps : ndarray, shape (n_steps,)
            Step sizes, each with a model of its own. One that diverges is given up and its loss is infinite.
        memory : bool
            Whether each shard's last recovered update is kept, and differences from it are decoded.
        """
        n, dtype = self.y.shape[0], self.x.dtype
        alive, steps = np.arange(steps.size), steps.astype(dtype)
        all_losses = np.full(steps.size, np.inf)
        kept = np.zeros((n, steps.size, 10), dtype) if memory else None
        weights = np.zeros((65, steps.size, 10), dtype)
        number = 0
        while True:
            z = (self.x @ weights.reshape(65, -1)).reshape(n, steps.size, 10)
            z -= z.max(axis=2, keepdims=True)
            np.exp(z, out=z)
            z /= z.sum(axis=2, keepdims=True)
            with np.errstate(divide="ignore"):
                loss = -np.log((z * self.y[:, None]).sum(axis=2)).mean(axis=0)
            going = np.isfinite(loss) & (loss < _FAILED)
            all_losses[alive] = np.where(going, loss, np.inf)
            yield all_losses.copy()
            if not going.all():
                alive, steps, weights, z = alive[going], steps[going], weights[:, going], z[:, going]
                kept = None if kept is None else kept[:, going]
            z -= self.y[:, None]
            weight = coverage[number % coverage.shape[0]][self.of].astype(dtype)
            if kept is None:
                z *= weight[:, None, None]
            else:
                seen, now = weight > 0.0, z
                z = kept + weight[:, None, None] * (now - kept)
                kept[seen] = now[seen]
            weights -= steps[None, :, None] * (self.x.T @ z.reshape(n, -1)).reshape(65, steps.size, 10) / n
            number += 1

    def time_of_soonest(self, target: float, coverage: Vector, seconds: Vector, budget: float) -> tuple[float, float]:
        """Return the seconds until the first of the STEPS is at the target, and that step; infinite if not in time."""
        elapsed = np.concatenate(([0.0], np.cumsum(seconds)))
        for now, loss in zip(elapsed[elapsed <= budget], self.losses(coverage, STEPS), strict=False):
            if (loss <= target).any():
                return float(now), float(STEPS[loss.argmin()])
            if np.isinf(loss).all():
                break
        return np.inf, float(STEPS[STEPS.size // 2])

    def rounds_to(self, coverage: Vector, target: float, most: int, *, memory: bool = False) -> float:
        """Return the rounds until the loss falls to `target`, with the best step; infinite if never."""
        for number, loss in enumerate(islice(self.losses(coverage, STEPS, memory=memory), most)):
            if (loss <= target).any():
                return float(number)
            if np.isinf(loss).all():
                break
        return np.inf

    def loss_of_descent(self, rounds: int) -> float:
        """Return the loss that gradient descent reaches after so many rounds, with the best step."""
        full = np.ones((1, int(self.of.max()) + 1))
        return float(next(islice(self.losses(full, STEPS), rounds, None)).min())
