"""Multinomial logistic regression with an l2 term: strongly convex and smooth."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from scipy.optimize import minimize

from fedgc.validation import check_indices, check_integer, check_positive

Matrix = NDArray[np.float64]


class RegressionLoss:
    r"""``F(theta) = mean cross-entropy + (regularisation / 2) |theta|^2``, a sum over shards of examples.

    Parameters
    ----------
    x : array_like, shape (n_examples, n_features)
        The examples; a column of ones is not added.
    y : array_like of int, shape (n_examples,)
        Their classes, from 0.
    shard_of : array_like of int, shape (n_examples,)
        The shard of each example, from 0; none is empty.
    regularisation : float
        The strong convexity.

    Attributes
    ----------
    smoothness : float
        ``lambda_max(x'x / n) / 2 + regularisation``: the Hessian of the cross-entropy in the scores is at most a half
        of the identity (D. Böhning, "Multinomial logistic regression algorithm", 1992).
    optimum : ndarray, shape (n_parameters,)
        The minimiser, to a gradient norm below 1e-6.
    least : float
        F there.

    Raises
    ------
    ValueError
        If the shapes do not fit, a shard is empty, or the regularisation is not above zero.

    Notes
    -----
    Shard S of n examples has the part ``sum over S of cross-entropy / n + (|S| / n) (regularisation / 2) |theta|^2``:
    the l2 term is divided like the examples, since no server keeps it, and a node without a step does not shrink its
    model either.

    Examples
    --------
    >>> loss = RegressionLoss([[1.0], [-1.0]], [0, 1], [0, 1], 0.5)
    >>> loss.optimum.round(4).tolist(), bool(loss.least < loss.values(np.zeros((1, 2)))[0])
    ([0.5213, -0.5213], True)
    """

    def __init__(self, x: ArrayLike, y: ArrayLike, shard_of: ArrayLike, regularisation: float) -> None:
        self.regularisation = check_positive("regularisation", regularisation)
        features, labels, of = np.array(x, dtype=np.float64), check_indices("y", y), check_indices("shard_of", shard_of)
        if features.ndim != 2 or not labels.size == of.size == features.shape[0] or not labels.size:
            raise ValueError(
                f"x, y and shard_of must be of as many examples; got {features.shape}, {labels.shape}, {of.shape}"
            )
        order = np.argsort(of, kind="stable")
        self._x, self._y = features[order], np.eye(check_integer("classes", labels.max() + 1, low=2))[labels[order]]
        sizes = np.bincount(of)
        if (sizes == 0).any():
            raise ValueError(f"shard_of must leave no shard empty; got none for shard {int(sizes.argmin())}")
        self.n_shards, self.n_parameters = sizes.size, features.shape[1] * self._y.shape[1]
        self._shares = sizes / labels.size
        # Shards filled up with zeros to the same length, so that those of all nodes are one batched product. A row of
        # zeros has no gradient whatever its label.
        there = np.arange(sizes.max()) < sizes[:, None]
        self._padded_x = np.zeros((*there.shape, features.shape[1]))
        self._padded_y = np.zeros((*there.shape, self._y.shape[1]))
        self._padded_x[there], self._padded_y[there] = self._x, self._y
        self._gathered: tuple[NDArray[np.intp], Matrix, Matrix] | None = None
        largest = float(np.linalg.eigvalsh(self._x.T @ self._x / labels.size)[-1])
        self.smoothness = largest / 2.0 + self.regularisation
        self.optimum, self.least = self._minimise()

    def values(self, models: Matrix) -> Matrix:
        """Return F at each model, (n_models,)."""
        theta = models.reshape(len(models), self._x.shape[1], -1)
        z = (self._x @ theta.transpose(1, 0, 2).reshape(self._x.shape[1], -1)).reshape(len(self._x), len(models), -1)
        z -= z.max(axis=2, keepdims=True)
        losses = np.log(np.exp(z).sum(axis=2)) - (z * self._y[:, None]).sum(axis=2)
        return np.asarray(losses.mean(axis=0) + self.regularisation / 2.0 * (models**2).sum(axis=1), dtype=np.float64)

    def combined_gradients(self, models: Matrix, coefficients: sparse.csr_array[np.float64]) -> Matrix:
        """Return ``sum over j of c_ij grad f_j(x_i)`` for each node, (n_nodes, n_parameters)."""
        shard = np.asarray(coefficients.indices, dtype=np.intp)
        node = np.repeat(np.arange(len(models)), np.diff(coefficients.indptr))
        if self._gathered is None or not np.array_equal(self._gathered[0], shard):
            self._gathered = shard, self._padded_x[shard], self._padded_y[shard]
        _, x, y = self._gathered
        theta = models.reshape(len(models), x.shape[2], -1)
        z = x @ theta[node]
        z -= z.max(axis=2, keepdims=True)
        np.exp(z, out=z)
        z /= z.sum(axis=2, keepdims=True)
        z -= y
        z *= (coefficients.data / len(self._x))[:, None, None]
        by_copy = (x.transpose(0, 2, 1) @ z).reshape(node.size, -1)
        result = self.regularisation * np.asarray(coefficients @ self._shares)[:, None] * models
        np.add.at(result, node, by_copy)
        return np.asarray(result, dtype=np.float64)

    def _minimise(self) -> tuple[Matrix, float]:
        everything = sparse.csr_array(np.ones((1, self.n_shards)))

        def value(flat: Matrix) -> tuple[float, Matrix]:
            return float(self.values(flat[None])[0]), self.combined_gradients(flat[None], everything)[0]

        options = {"maxiter": 5000, "maxfun": 20000, "ftol": 0.0, "gtol": 1e-9}
        optimise: Any = minimize  # its overloads leave out functions of a fixed number of arguments
        found = optimise(value, np.zeros(self.n_parameters), jac=True, method="L-BFGS-B", options=options)
        norm = float(np.linalg.norm(found.jac))
        if norm > 1e-6:
            raise RuntimeError(f"the optimum must have a gradient below 1e-6; got {norm:.3g}")
        return np.asarray(found.x, dtype=np.float64), float(found.fun)
