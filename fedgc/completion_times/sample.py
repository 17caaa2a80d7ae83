"""Seconds per shard of many clients at once, with weights, some only known to be longer than a bound."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Entries:
    """Weighted logarithms of seconds per shard, ordered by client.

    Attributes
    ----------
    log_time : ndarray, shape (n_entries,)
        Natural logarithm of the seconds per shard.
    weight : ndarray, shape (n_entries,)
        Weight of each entry, above 0.
    owner : ndarray of int, shape (n_entries,)
        The client of each entry, not decreasing.
    n_clients : int
        Number of clients, those without entries included.
    there : ndarray of bool, shape (n_entries,)
        Whether the client is known to have taken part.
    """

    log_time: Vector
    weight: Vector
    owner: NDArray[np.intp]
    n_clients: int
    there: NDArray[np.bool_]

    @property
    def unsure(self) -> Vector:
        """The weight of each entry, 0 where the client is known to have taken part."""
        return np.where(self.there, 0.0, self.weight)

    @cached_property
    def _segments(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        starts = np.flatnonzero(np.diff(self.owner, prepend=-1))
        return starts, self.owner[starts]

    def sum(self, values: Vector) -> Vector:
        """Return the sum of `values` over each client's entries, (n_clients,) or (n_clients, n_columns)."""
        total = np.zeros((self.n_clients, *values.shape[1:]))
        starts, rows = self._segments
        if rows.size:
            # About three times as fast as bincount, which does not know that the owners are in order.
            total[rows] = np.add.reduceat(values, starts, axis=0)
        return total

    def min(self, values: Vector) -> Vector:
        """Return the least of `values` over each client's entries, infinite where there are none."""
        least = np.full(self.n_clients, np.inf)
        starts, rows = self._segments
        if rows.size:
            least[rows] = np.minimum.reduceat(values, starts)
        return least

    def take(self, keep: NDArray[np.bool_]) -> Entries:
        """Return the entries of the clients in `keep`, which are numbered anew."""
        cells = keep[self.owner]
        number = np.cumsum(keep) - 1
        return Entries(
            self.log_time[cells], self.weight[cells], number[self.owner[cells]], int(keep.sum()), self.there[cells]
        )

    def rows(self, low: int, high: int) -> Entries:
        """Return the entries of clients low .. high - 1, numbered from 0."""
        first, last = np.searchsorted(self.owner, [low, high])
        part = slice(int(first), int(last))
        return Entries(self.log_time[part], self.weight[part], self.owner[part] - low, high - low, self.there[part])

    def presence(self, presence: Vector) -> Vector:
        """Return each entry's probability that its client took part, from that of each client."""
        return np.where(self.there, 1.0, presence[self.owner])

    def log_silence(self, presence: Vector, longer: Vector) -> Vector:
        """Return each entry's log probability of silence, given P(X > bound) of a client that takes part.

        `longer` has shape (n_entries,), or (n_entries, n_columns) for several cases.
        """
        there = self.presence(presence)
        there = there if longer.ndim == 1 else there[:, None]
        return np.log(np.maximum(1.0 - there + there * longer, np.finfo(np.float64).tiny))


@dataclass(frozen=True, eq=False)
class Sample:
    """What was seen of each client, and how long it stayed silent.

    Attributes
    ----------
    seen : Entries
        Known seconds per shard.
    silent : Entries
        Bounds: the client took longer, or was absent unless it is known to have been there.
    gone : ndarray of bool, shape (n_clients,)
        Clients that seem to have gone, see :func:`~fedgc.completion_times.never_seen.mark_gone`.
    """

    seen: Entries
    silent: Entries
    gone: NDArray[np.bool_]

    @property
    def n_clients(self) -> int:
        """Number of clients, those without observations included."""
        return self.seen.n_clients

    @classmethod
    def build(cls, log_time: Vector, weight: Vector, censored: NDArray[np.bool_], there: NDArray[np.bool_]) -> Sample:
        """Return the sample of a table with one row per client; cells of weight 0 are left out."""

        def entries(cells: NDArray[np.bool_]) -> Entries:
            return Entries(log_time[cells], weight[cells], np.nonzero(cells)[0], log_time.shape[0], there[cells])

        used = weight > 0.0
        return cls(entries(used & ~censored), entries(used & censored), np.zeros(log_time.shape[0], dtype=np.bool_))

    def rows(self, low: int, high: int) -> Sample:
        """Return the sample of clients low .. high - 1."""
        return Sample(self.seen.rows(low, high), self.silent.rows(low, high), self.gone[low:high])

    def take(self, keep: NDArray[np.bool_]) -> Sample:
        """Return the sample of the clients in `keep`."""
        return Sample(self.seen.take(keep), self.silent.take(keep), self.gone[keep])
