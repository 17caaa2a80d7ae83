"""What a gradient code is: who computes which shards, and with which coefficients they are summed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse


class Blocks(NamedTuple):
    """The block structure of a code whose shards fall into blocks that are served as a whole.

    Attributes
    ----------
    of_client : ndarray of int, shape (n_clients,)
        The block that each client serves.
    of_shard : ndarray of int, shape (n_shards,)
        The block that each shard belongs to.
    n_blocks : int
        Number of blocks.
    """

    of_client: NDArray[np.intp]
    of_shard: NDArray[np.intp]
    n_blocks: int


class Code(ABC):
    """An assignment of overlapping shards to clients with encoding coefficients.

    A coded update is ``sum_j A[i, j] * update_j`` where A is the encoding matrix. In most codes client i sends row i,
    and A[i, j] is zero unless it holds shard j. A code with partial work has a row for all that may be sent.

    To add a code, subclass this in a file of its own, export it in ``fedgc/codes/__init__.py``, add it to the list in
    ``tests/test_codes.py`` and, for configurations, to the ``CODES`` of ``fedgc/schemes.py``.
    """

    n_clients: int
    n_shards: int

    @property
    def n_rows(self) -> int:
        """Number of coded updates that may be sent, n_clients unless a client may send different ones."""
        return int(self.sparse_matrix.shape[0])

    @property
    def blocks(self) -> Blocks | None:
        """The block structure, or None if the code has none."""
        return None

    @property
    def interchangeable(self) -> NDArray[np.intp] | None:
        """Labels of the shards, (n_shards,): those with the same one change places at random in every round.

        None if every shard stays in its place. See :mod:`fedgc.codes.redraw`.
        """
        return None

    @property
    @abstractmethod
    def sparse_matrix(self) -> sparse.csr_array[np.float64]:
        """The encoding matrix as a sparse array without explicit zeros, shape (n_rows, n_shards)."""

    @property
    def encoding_matrix(self) -> NDArray[np.float64]:
        """The dense encoding matrix, shape (n_rows, n_shards)."""
        dense: NDArray[np.float64] = self.sparse_matrix.toarray()
        return dense

    def shards_of(self, client: int) -> NDArray[np.intp]:
        """Return the indices of the shards that `client` computes in a round, ascending."""
        start, end = self.sparse_matrix.indptr[client : client + 2]
        return np.asarray(self.sparse_matrix.indices[start:end], dtype=np.intp)

    @property
    def shards_per_client(self) -> NDArray[np.intp]:
        """Number of :meth:`shards_of` each client, (n_clients,)."""
        return np.diff(self.sparse_matrix.indptr[: self.n_clients + 1]).astype(np.intp)

    def coefficients_of(self, client: int) -> NDArray[np.float64]:
        """Return the encoding coefficients of `client`, in the order of :meth:`shards_of`."""
        start, end = self.sparse_matrix.indptr[client : client + 2]
        return np.array(self.sparse_matrix.data[start:end])

    def rows_after(self, client: int, done: int) -> NDArray[np.intp]:
        """Return the rows that `client` sends with so many of its shards done, in order: its one row once all are.

        Codes with partial work send others before that.
        """
        return np.arange(client, client + int(done >= self.shards_of(client).size))

    def coverage(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return ``A' w``: how often each shard counts if coded update i counts w_i times, (n_shards,)."""
        return np.asarray(self.sparse_matrix.T @ weights, dtype=np.float64)

    def with_places(self, shard_at: NDArray[np.intp]) -> Code:
        """Return the code with shard ``shard_at[j]`` in the place of shard j; for codes with interchangeable shards."""
        raise ValueError(f"shards of {type(self).__name__} have fixed places")

    @property
    def load(self) -> float:
        """Computation load: number of shard copies per shard."""
        return float(self.sparse_matrix.nnz) / self.n_shards
