"""Codes given by a sparse encoding matrix, for assignments without block structure."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse

from fedgc.codes.base import Code


class MatrixCode(Code):
    """A code that is nothing but its encoding matrix.

    Parameters
    ----------
    encoding_matrix : array_like or sparse array, shape (n_clients, n_shards)
        Coefficient of each shard in each client's coded update; client i holds the shards of its nonzero entries.
    allow_unheld : bool
        Whether shards without a holder are accepted, as some published codes have them.

    Raises
    ------
    ValueError
        If an entry is not finite, or a shard is held by nobody and `allow_unheld` is not set.

    Examples
    --------
    >>> MatrixCode([[1.0, 0.5], [0.0, 0.5]]).load
    1.5
    """

    def __init__(
        self, encoding_matrix: ArrayLike | sparse.csr_array[np.float64], *, allow_unheld: bool = False
    ) -> None:
        if isinstance(encoding_matrix, sparse.csr_array):
            matrix = encoding_matrix.copy()
        else:
            matrix = sparse.csr_array(np.atleast_2d(np.asarray(encoding_matrix, dtype=np.float64)))
        # Shards with coefficient zero are not computed: they do not count as copies.
        matrix.eliminate_zeros()
        matrix.sort_indices()
        if not np.isfinite(matrix.data).all():
            raise ValueError("encoding_matrix must be finite; got NaN or infinity")
        self.n_clients, self.n_shards = matrix.shape
        held = np.bincount(matrix.indices, minlength=self.n_shards)
        if not allow_unheld and (held == 0).any():
            raise ValueError(f"every shard must be held by a client; got none for shard {int(np.argmin(held))}")
        self._matrix = matrix

    @property
    def sparse_matrix(self) -> sparse.csr_array[np.float64]:
        """The encoding matrix."""
        return self._matrix
