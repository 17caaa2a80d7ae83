"""What nodes minimise together: a sum over shards, each a part of it."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

Matrix = NDArray[np.float64]


class ShardedLoss(Protocol):
    """A loss ``F = sum over shards of f_j``.

    Attributes
    ----------
    n_shards, n_parameters : int
        Numbers of shards, and of parameters of a model.
    """

    n_shards: int
    n_parameters: int

    def values(self, models: Matrix) -> Matrix:
        """Return F at each model, (n_models,), from (n_models, n_parameters)."""

    def combined_gradients(self, models: Matrix, coefficients: sparse.csr_array[np.float64]) -> Matrix:
        """Return ``sum over j of c_ij grad f_j(x_i)`` for each node, (n_nodes, n_parameters).

        `models` has the model x_i of each node, `coefficients`, (n_nodes, n_shards), is sparse: nothing else is worked
        out than the shards that a node has.
        """


class QuadraticLoss:
    r"""Shards ``f_j(x) = (x - c_j)' H_j (x - c_j) / 2``, whose common optimum is known.

    Parameters
    ----------
    centres : array_like, shape (n_shards, n_parameters)
        The optimum c_j of each shard.
    curvatures : array_like, shape (n_shards, n_parameters, n_parameters), optional
        Symmetric positive definite H_j; by default the identity over n_shards, so that F has the identity.

    Attributes
    ----------
    optimum : ndarray, shape (n_parameters,)
        ``(sum H_j)^-1 sum H_j c_j``.
    least : float
        F there.

    Raises
    ------
    ValueError
        If the shapes do not fit, or some H_j is not symmetric positive definite.

    Examples
    --------
    >>> loss = QuadraticLoss([[0.0], [2.0]])
    >>> loss.optimum.tolist(), loss.values(loss.optimum[None]).tolist()
    ([1.0], [0.5])
    """

    def __init__(self, centres: ArrayLike, curvatures: ArrayLike | None = None) -> None:
        c = np.array(centres, dtype=np.float64)
        if c.ndim != 2 or not c.size or not np.isfinite(c).all():
            raise ValueError(f"centres must be a matrix of finite numbers, a row per shard; got shape {c.shape}")
        self.n_shards, self.n_parameters = c.shape
        shape = (*c.shape, self.n_parameters)
        h = np.broadcast_to(np.eye(shape[-1]) / shape[0], shape) if curvatures is None else np.array(curvatures, float)
        if h.shape != shape:
            raise ValueError(f"curvatures must have shape {shape}; got {h.shape}")
        if not np.array_equal(h, h.transpose(0, 2, 1)) or not (np.linalg.eigvalsh(h)[:, 0] > 0.0).all():
            raise ValueError("curvatures must be symmetric and positive definite; got one that is not")
        self._c, self._h = c, h
        self.optimum: Matrix = np.linalg.solve(h.sum(axis=0), np.einsum("jab,jb->a", h, c))
        self.least = float(self.values(self.optimum[None])[0])

    def values(self, models: Matrix) -> Matrix:
        """Return F at each model, (n_models,)."""
        gap = models[:, None] - self._c
        return np.asarray(np.einsum("ija,jab,ijb->i", gap, self._h, gap) / 2.0, dtype=np.float64)

    def combined_gradients(self, models: Matrix, coefficients: sparse.csr_array[np.float64]) -> Matrix:
        """Return ``sum over j of c_ij H_j (x_i - c_j)`` for each node."""
        gap = models[:, None] - self._c
        return np.asarray(np.einsum("ij,jab,ijb->ia", coefficients.toarray(), self._h, gap), dtype=np.float64)
