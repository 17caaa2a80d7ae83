"""Multinomial regression of scikit-learn's digits with an l2 term: strongly convex, smooth, with a known optimum."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

sys.path.append(str(Path(__file__).parents[1] / "planning"))
from digits_replay import Digits

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Descent:
    """What runs of gradient descent were like before the step of each round.

    Attributes
    ----------
    distance, excess, gradient : ndarray, shape (n_runs, n_rounds)
        ``|theta - theta*|^2``, ``f(theta) - f*`` and ``|grad f(theta)|^2``.
    noise : ndarray, shape (n_runs, n_checked)
        ``E|g^ - g|^2`` at the model of each round that was checked: the mean over what may arrive, not what did.
    """

    distance: Array
    excess: Array
    gradient: Array
    noise: Array


class Regression:
    """``f(theta) = mean cross-entropy + (regularisation / 2) |theta|^2`` over label-sorted shards.

    The l2 term is the server's own, which no straggler keeps from it; the shards carry the cross-entropy.

    Parameters
    ----------
    n_shards : int
        Number of shards.
    regularisation : float
        The strong convexity lambda.

    Attributes
    ----------
    smoothness : float
        ``lambda_max(X'X / n) / 2 + regularisation``: the Hessian of the cross-entropy in the scores is at most a half
        of the identity (D. Böhning, "Multinomial logistic regression algorithm", 1992).
    optimum : ndarray, shape (65, 10)
        The minimiser, to a gradient norm below 1e-7.
    least : float
        The loss there.
    """

    def __init__(self, n_shards: int, regularisation: float) -> None:
        data = Digits(n_shards, np.float64)
        self.x, self.y, self.of = data.x, data.y, data.of
        self.n, self.regularisation = self.y.shape[0], regularisation
        self.smoothness = float(np.linalg.eigvalsh(self.x.T @ self.x / self.n)[-1]) / 2.0 + regularisation
        # Rows by shard, filled up with zeros, for the gradients of all shards at once.
        sizes = np.bincount(self.of, minlength=n_shards)
        self._row = np.zeros((n_shards, sizes.max()), dtype=np.intp)
        self._x = np.zeros((n_shards, sizes.max(), self.x.shape[1]))
        for shard, size in enumerate(sizes):
            own = np.flatnonzero(self.of == shard)
            self._row[shard, :size], self._x[shard, :size] = own, self.x[own]

        def value(flat: Array) -> tuple[float, Array]:
            theta = flat.reshape(65, 1, 10)
            loss, slope = self._forward(theta)
            return float(loss[0]), self._gradient(theta, slope).ravel()

        options = {"maxiter": 5000, "ftol": 0.0, "gtol": 1e-9}
        found = minimize(value, np.zeros(650), jac=True, method="L-BFGS-B", options=options)
        if np.linalg.norm(found.jac) > 1e-7:
            raise RuntimeError(f"the optimum must have a gradient below 1e-7; got {np.linalg.norm(found.jac):.3g}")
        self.optimum, self.least = found.x.reshape(65, 10), float(found.fun)

    def _forward(self, theta: Array) -> tuple[Array, Array]:
        """Return loss, (n_runs,), and derivative of each example's loss by its scores, (n_examples, n_runs, 10)."""
        z = (self.x @ theta.reshape(65, -1)).reshape(self.n, -1, 10)
        z -= z.max(axis=2, keepdims=True)
        own = (z * self.y[:, None]).sum(axis=2)
        np.exp(z, out=z)
        total = z.sum(axis=2, keepdims=True)
        loss = (np.log(total[..., 0]) - own).mean(axis=0)
        z /= total
        z -= self.y[:, None]
        return loss + self.regularisation / 2.0 * (theta**2).sum(axis=(0, 2)), z

    def _gradient(self, theta: Array, slope: Array) -> Array:
        data = (self.x.T @ slope.reshape(self.n, -1)).reshape(theta.shape) / self.n
        return data + self.regularisation * theta

    def _noise(self, slope: Array, covariance: Array) -> Array:
        """Return ``E|g^ - g|^2 = sum_jk cov(v_j, v_k) <g_j, g_k>`` of each run."""
        n_shards, most, runs = *self._row.shape, slope.shape[1]
        by_shard = slope[self._row].reshape(n_shards, most, -1)
        gradients = (self._x.transpose(0, 2, 1) @ by_shard).reshape(n_shards, 65, runs, 10) / self.n
        mixed = (covariance @ gradients.reshape(n_shards, -1)).reshape(gradients.shape)
        return (mixed * gradients).sum(axis=(0, 1, 3))

    def descend(self, coverage: Array, steps: Array, covariance: Array, checked: NDArray[np.intp]) -> Descent:
        """Descend from zero, one run for each series of coverages.

        Parameters
        ----------
        coverage : ndarray, shape (n_runs, n_rounds, n_shards)
            How often each shard's gradient counts in each round.
        steps : ndarray, shape (n_rounds,)
            Step sizes.
        covariance : ndarray, shape (n_shards, n_shards)
            Covariance of the coverages.
        checked : ndarray of int
            Rounds, from 0, whose noise is to be known.
        """
        runs, rounds, _ = coverage.shape
        theta = np.zeros((65, runs, 10))
        distance, excess, squared = np.empty((3, runs, rounds))
        noise, wanted = [], set(checked.tolist())
        for t in range(rounds):
            loss, slope = self._forward(theta)
            distance[:, t] = ((theta - self.optimum[:, None]) ** 2).sum(axis=(0, 2))
            excess[:, t] = loss - self.least
            squared[:, t] = (self._gradient(theta, slope) ** 2).sum(axis=(0, 2))
            if t in wanted:
                noise.append(self._noise(slope, covariance))
            slope *= coverage[:, t].T[self.of][..., None]
            theta -= steps[t] * self._gradient(theta, slope)
        return Descent(distance, excess, squared, np.array(noise).T)
