"""The last observations of every client, in plain arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from operator import index
from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedgc.completion_times.observation import TimeObservation
from fedgc.completion_times.sample import Vector

#: Columns of the table of observations. NaN where the fixed part is not known.
COLUMNS = ("shards", "seconds", "fixed_seconds")
FLAGS = ("censored", "complete", "there")


@dataclass(frozen=True, eq=False)
class History:
    """Ring buffers of observations, one row per client.

    Attributes
    ----------
    node_ids : ndarray of int, shape (n_clients,)
        Node ids in increasing order, see :func:`as_ids`.
    count : ndarray of int, shape (n_clients,)
        Number of observations of each client ever; the newest lies at ``(count - 1) % window``.
    shards, seconds, fixed_seconds : ndarray, shape (n_clients, window)
        See :class:`TimeObservation`.
    censored, complete, there : ndarray of bool, shape (n_clients, window)
        See :class:`TimeObservation`.
    """

    node_ids: NDArray[np.int64]
    count: NDArray[np.int64]
    shards: Vector
    seconds: Vector
    fixed_seconds: Vector
    censored: NDArray[np.bool_]
    complete: NDArray[np.bool_]
    there: NDArray[np.bool_]

    @classmethod
    def empty(cls, window: int, n_clients: int = 0, node_ids: NDArray[np.int64] | None = None) -> History:
        """Return a history of `n_clients` clients without observations."""
        shape = (n_clients, window)
        ids = np.arange(n_clients, dtype=np.int64) if node_ids is None else node_ids
        return cls(
            ids,
            np.zeros(n_clients, dtype=np.int64),
            np.ones(shape),
            np.ones(shape),
            np.full(shape, np.nan),
            np.zeros(shape, dtype=np.bool_),
            np.ones(shape, dtype=np.bool_),
            np.ones(shape, dtype=np.bool_),
        )

    @property
    def window(self) -> int:
        """Number of observations kept per client."""
        return int(self.shards.shape[1])

    @property
    def n_clients(self) -> int:
        """Number of clients that have been observed."""
        return self.node_ids.size

    def age(self) -> NDArray[np.int64]:
        """Return how many newer observations each cell's client has, -1 for cells not in use, (n_clients, window)."""
        age = (self.count[:, None] - 1 - np.arange(self.window)) % self.window
        return np.where(age < self.count[:, None], age, -1)

    def weight(self, forgetting: float) -> Vector:
        """Return ``forgetting`` to the power of each observation's age, 0 for cells not in use."""
        age = self.age()
        return np.where(age >= 0, forgetting ** np.maximum(age, 0), 0.0)

    def rows(self, node_ids: ArrayLike) -> NDArray[np.intp]:
        """Return the row of each node id, `n_clients` for those never observed."""
        wanted = as_ids(node_ids)
        if not self.n_clients:
            return np.zeros(wanted.size, dtype=np.intp)
        row = np.minimum(np.searchsorted(self.node_ids, wanted), self.n_clients - 1)
        return np.where(self.node_ids[row] == wanted, row, self.n_clients)

    def append(self, observations: Sequence[TimeObservation]) -> History:
        """Return the history with `observations` added in their order."""
        ids = as_ids([seen.node_id for seen in observations])
        known = np.union1d(self.node_ids, ids)
        grown = History.empty(self.window, known.size, known)
        place = np.searchsorted(known, self.node_ids)
        for name in ("count", *COLUMNS, *FLAGS):
            getattr(grown, name)[place] = getattr(self, name)
        row = np.searchsorted(known, ids)
        order = np.argsort(row, kind="stable")
        ordered = row[order]
        rank = np.arange(ordered.size) - np.searchsorted(ordered, ordered)
        added = np.bincount(row, minlength=known.size)
        # Of more observations than a row can hold only the last are written, so that no cell is written twice.
        kept = rank >= added[ordered] - self.window
        cell = (grown.count[ordered] + rank)[kept] % self.window
        for name in COLUMNS:
            given = np.array([getattr(seen, name) for seen in observations], dtype=np.float64)
            getattr(grown, name)[ordered[kept], cell] = given[order][kept]
        for name in FLAGS:
            flags = np.array([getattr(seen, name) for seen in observations], dtype=np.bool_)
            getattr(grown, name)[ordered[kept], cell] = flags[order][kept]
        return replace(grown, count=grown.count + added)

    def copy_row(self, old: int, new: int) -> History:
        """Return the history in which node `new` has the observations of node `old`, if there are any."""
        known = np.union1d(self.node_ids, as_ids([new]))
        row = int(self.rows([old])[0])
        if row == self.n_clients:
            return self
        copied = History.empty(self.window, known.size, known)
        place, into = np.searchsorted(known, self.node_ids), int(np.searchsorted(known, as_ids([new]))[0])
        for name in ("count", *COLUMNS, *FLAGS):
            column, wider = getattr(self, name), getattr(copied, name)
            wider[place] = column
            wider[into] = column[row]
        return copied


def as_ids(node_ids: ArrayLike) -> NDArray[np.int64]:
    """Return node ids as 64-bit integers; Flower's unsigned ones above 2^63 - 1 wrap around, one to one.

    Raises
    ------
    ValueError
        If they are not integers in one dimension.
    """
    if isinstance(node_ids, np.ndarray):
        given = node_ids
    else:
        try:
            # By hand, since numpy makes floats of a list with both -1 and 2^63.
            given = np.array([index(node) % 2**64 for node in cast(Iterable[int], node_ids)], dtype=np.uint64)
        except TypeError as error:
            raise ValueError(f"node_ids must be integers in one dimension; got {node_ids!r}") from error
    if given.ndim != 1 or (given.size and not np.issubdtype(given.dtype, np.integer)):
        raise ValueError(f"node_ids must be integers in one dimension; got {given.dtype} of shape {given.shape}")
    return given.astype(np.int64)
