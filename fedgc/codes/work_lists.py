"""Work lists: every client works down an ordered list of shards, and what it has done by the deadline counts."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from fedgc.codes.base import Code
from fedgc.codes.redraw import checked_labels
from fedgc.validation import check_indices, check_integer

Segments = Sequence[Sequence[int]]


class WorkLists(Code):
    """A code with partial work: a client sends the sum over the part of its list that it has done.

    Parameters
    ----------
    lists : sequence of (sequence of int, or sequence of sequences of int)
        For each client, the shards in the order in which it works on them. A client that keeps a separate sum for each
        of several segments (its own share, each backup share) has its list given segment by segment.
    n_shards : int
        Number of shards.
    interchangeable : array_like of int, shape (n_shards,), optional
        Shards with the same label change places in all lists at random in every round, see
        :func:`fedgc.codes.redraw_places`: those of a block, of which every member holds all. By default none do.
    held : sequence of array_like of int, optional
        For each client, the shards that it holds, if its list may end before the last of them. What `interchangeable`
        has to keep to; by default every client holds the shards of its list and no other.

    Raises
    ------
    ValueError
        If there is no client, a list is empty or names a shard twice or one that is not there, nobody holds a shard,
        there is not a label for every shard, or a client that has a shard in its list does not hold all those with the
        same label, so that its list would come to name a shard that it does not hold.

    Notes
    -----
    The encoding matrix has a row for every place of every list: the sum of the segment up to there. Of one segment at
    most one row is sent, the longest that was finished; :meth:`progress_outcomes` tells which rows a client sends after
    how many shards. Clients that share shards work on them in different orders, so that between them they are done
    sooner, and backup work only fills what would be idle time. One shard per segment makes every shard recoverable
    singly; a single segment needs the least bytes. For holdings that are not blocks,
    :func:`fedgc.assignment.worst_case_lists` finds such orders.

    References
    ----------
    A. Ramamoorthy, R. Meng, V. S. Girimaji, "Leveraging partial stragglers within gradient coding", NeurIPS 2024,
    arXiv 2405.19509, for ordered work on shared chunks.

    Examples
    --------
    Two clients on the same three shards, from different ends; the second sends its last shard apart:

    >>> code = WorkLists([[0, 1, 2], [[2, 1], [0]]], n_shards=3)
    >>> code.encoding_matrix.astype(int)
    array([[1, 0, 0],
           [1, 1, 0],
           [1, 1, 1],
           [0, 0, 1],
           [0, 1, 1],
           [1, 0, 0]])
    >>> code.progress_outcomes(1).astype(int)
    array([[0, 0, 0],
           [1, 0, 0],
           [0, 1, 0],
           [0, 1, 1]])
    >>> code.load
    2.0
    """

    def __init__(
        self,
        lists: Sequence[Sequence[int] | Segments],
        n_shards: int,
        *,
        interchangeable: ArrayLike | None = None,
        held: Sequence[ArrayLike] | None = None,
    ) -> None:
        self.n_shards = check_integer("n_shards", n_shards, low=1)
        self.n_clients = check_integer("number of lists", len(lists), low=1)
        self._segments = [_segments(client, given, self.n_shards) for client, given in enumerate(lists)]
        lengths = [sum(len(segment) for segment in segments) for segments in self._segments]
        self._first = np.concatenate(([0], np.cumsum(lengths)))
        self._ends = [np.cumsum([0, *(segment.size for segment in segments)]) for segments in self._segments]
        rows = [
            segment[: end + 1] for segments in self._segments for segment in segments for end in range(len(segment))
        ]
        columns = np.concatenate(rows)
        times = np.bincount(columns, minlength=self.n_shards)
        if (times == 0).any():
            raise ValueError(f"every shard must be held by a client; got none for shard {int(np.argmin(times))}")
        pointers = np.concatenate(([0], np.cumsum([row.size for row in rows])))
        self._matrix = sparse.csr_array((np.ones(columns.size), columns, pointers), shape=(len(rows), self.n_shards))
        self._matrix.sort_indices()
        self._labels: NDArray[np.intp] | None = None
        if interchangeable is not None:
            whole = [self.shards_of(client) for client in range(self.n_clients)]
            self._labels = checked_labels(interchangeable, whole, held, self.n_shards)

    @property
    def interchangeable(self) -> NDArray[np.intp] | None:
        """Labels of the shards that change places with each other, from 0 on, or None."""
        return self._labels

    def with_places(self, shard_at: NDArray[np.intp]) -> WorkLists:
        """Return the code with shard ``shard_at[j]`` in the place of shard j; the rows keep their numbers.

        Raises
        ------
        ValueError
            If it is not a permutation among interchangeable shards.

        Examples
        --------
        >>> code = WorkLists([[0, 1, 2], [2, 1, 0]], n_shards=3, interchangeable=[0, 0, 0])
        >>> [code.with_places(np.array([1, 2, 0])).shards_of(client).tolist() for client in (0, 1)]
        [[1, 2, 0], [0, 2, 1]]
        """
        if self._labels is None:
            return super().with_places(shard_at)  # type: ignore[return-value]
        if not (np.sort(shard_at) == np.arange(self.n_shards)).all() or (self._labels[shard_at] != self._labels).any():
            raise ValueError(f"shard_at must permute interchangeable shards; got {shard_at.tolist()}")
        other = copy(self)
        other._segments = [[shard_at[segment] for segment in segments] for segments in self._segments]
        columns = shard_at[self._matrix.indices]
        other._matrix = sparse.csr_array((self._matrix.data, columns, self._matrix.indptr), shape=self._matrix.shape)
        other._matrix.sort_indices()
        return other

    @property
    def sparse_matrix(self) -> sparse.csr_array[np.float64]:
        """The encoding matrix, a row for every place of every list."""
        return self._matrix

    def rows_of(self, client: int) -> NDArray[np.intp]:
        """Return the rows of `client`, in the order of its list."""
        return np.arange(self._first[client], self._first[client + 1])

    def segments_of(self, client: int) -> list[NDArray[np.intp]]:
        """Return the segments of `client`'s list, in order."""
        return list(self._segments[client])

    def segment_sizes_of(self, client: int) -> tuple[int, ...]:
        """Return the number of shards in each segment of `client`'s list, by which its outcomes are known."""
        return tuple(segment.size for segment in self._segments[client])

    def progress_outcomes(self, client: int) -> NDArray[np.bool_]:
        """Return which of :meth:`rows_of` are sent after 0, 1, ..., all shards of the list, (length + 1, length)."""
        ends = self._ends[client]
        place, done = np.arange(1, ends[-1] + 1), np.arange(ends[-1] + 1)[:, None]
        last = np.zeros(place.size, dtype=np.bool_)
        last[ends[1:] - 1] = True
        # The row of the last shard done, and those of the segments done before.
        return np.asarray((place == done) | (last & (place < done)))

    def rows_after(self, client: int, done: int) -> NDArray[np.intp]:
        """Return the rows that `client` sends after so many shards of its list: one of each segment that it has begun.

        Examples
        --------
        >>> WorkLists([[0, 1, 2], [[2, 1], [0]]], n_shards=3).rows_after(1, 3).tolist()
        [4, 5]
        """
        ends = self._ends[client]
        begun = np.minimum(ends[1:], done)[ends[:-1] < done]
        return np.asarray(self._first[client] + begun - 1)

    @property
    def load(self) -> float:
        """Number of shard copies per shard, counting lists as if they were worked to the end."""
        return float(self._first[-1]) / self.n_shards

    @property
    def shards_per_client(self) -> NDArray[np.intp]:
        """Length of each client's list, (n_clients,)."""
        return np.diff(self._first).astype(np.intp)

    def shards_of(self, client: int) -> NDArray[np.intp]:
        """Return the shards of `client` in the order of its list."""
        return np.concatenate(self._segments[client])


def _segments(client: int, given: Sequence[int] | Segments, n_shards: int) -> list[NDArray[np.intp]]:
    nested = isinstance(given, Sequence) and len(given) > 0 and all(np.ndim(entry) == 1 for entry in given)
    if not isinstance(given, (Sequence, np.ndarray)):
        raise ValueError(f"list of client {client} must be a sequence of shards; got {given!r}")
    segments = [check_indices(f"list of client {client}", segment) for segment in (given if nested else [given])]
    shards = np.concatenate(segments)
    if min(segment.size for segment in segments) == 0:
        raise ValueError(f"list of client {client} must have at least one shard in every segment; got none")
    if shards.min() < 0 or shards.max() >= n_shards or np.unique(shards).size != shards.size:
        raise ValueError(
            f"list of client {client} must name distinct shards from 0 to {n_shards - 1}; got {shards.tolist()}"
        )
    return segments
