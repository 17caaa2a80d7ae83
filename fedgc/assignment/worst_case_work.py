"""How much work clients may do while some shard has no copy: for given work lists, and a bound for any order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from scipy.sparse import csgraph

from fedgc.validation import check_indices, check_integer

Ints = NDArray[np.intp]


def work_while_missing(lists: Sequence[ArrayLike], n_shards: int) -> Ints:
    """Return how many shards clients may have done at most while there is no copy of each shard, (n_shards,).

    Parameters
    ----------
    lists : sequence of array_like of int
        For each client, its shards in the order in which it works on them.
    n_shards : int
        Number of shards.

    Raises
    ------
    ValueError
        If a list names a shard twice or one that is not there, or a shard is in no list.

    Notes
    -----
    While shard j is missing, each of its holders has done at most what stands before j in its list, and all others may
    have done all of theirs, so that ``Q_j = sum_(i holds j) (position_ij - 1) + sum_(others) length_i``. The maximum Q
    over j is the most that clients may do in all while some shard is missing, and after one more none is.

    References
    ----------
    A. Ramamoorthy, R. Meng, V. S. Girimaji, "Leveraging partial stragglers within gradient coding", NeurIPS 2024,
    arXiv 2405.19509.

    Examples
    --------
    Two clients with the same three shards, in the same order and from different ends:

    >>> work_while_missing([[0, 1, 2], [0, 1, 2]], 3).tolist()
    [0, 2, 4]
    >>> work_while_missing([[0, 1, 2], [2, 1, 0]], 3).tolist()
    [2, 2, 2]
    """
    checked = check_lists(lists, n_shards)
    return np.asarray(sum(own.size for own in checked) - _head_starts(checked, n_shards))


def worst_case_bound(holdings: Sequence[ArrayLike], n_shards: int) -> int:
    """Return work that in no order of these lists suffices for sure for a copy of every shard: ``Q`` is never less.

    Parameters
    ----------
    holdings, n_shards
        As the lists of :func:`work_while_missing`, in any order.

    Notes
    -----
    ``Q_j = W - g_j`` with W the sum of all lengths and ``g_j = sum_(i holds j) (length_i - position_ij + 1)``. Over the
    shards that one set of connected clients holds, the g_j sum up to ``sum_i length_i (length_i + 1) / 2`` in any
    order, so that the least is at most their mean; and none is more than all holders' lengths.

    Examples
    --------
    >>> worst_case_bound([[0, 1, 2], [0, 1, 2]], 3)
    2
    """
    checked = check_lists(holdings, n_shards)
    most = min(most_head_start(checked, shards, clients) for shards, clients in connected_parts(checked, n_shards))
    return sum(own.size for own in checked) - most


def check_lists(lists: Sequence[ArrayLike], n_shards: int) -> list[Ints]:
    """Return the lists as arrays, or raise ValueError; see :func:`work_while_missing`."""
    check_integer("n_shards", n_shards, low=1)
    checked = []
    for client, given in enumerate(lists):
        own = check_indices(f"list of client {client}", given) if np.size(given) else np.zeros(0, dtype=np.intp)
        if own.size and (own.max() >= n_shards or np.unique(own).size != own.size):
            raise ValueError(
                f"list of client {client} must name distinct shards from 0 to {n_shards - 1}; got {own.tolist()}"
            )
        checked.append(own)
    held = np.bincount(np.concatenate([*checked, np.zeros(0, dtype=np.intp)]), minlength=n_shards)
    if (held == 0).any():
        raise ValueError(f"every shard must be held by a client; got none for shard {int(np.argmin(held))}")
    return checked


def _head_starts(lists: Sequence[Ints], n_shards: int) -> Ints:
    """Return ``g_j``, how many shards all holders have left from each shard on, (n_shards,)."""
    total = np.zeros(n_shards, dtype=np.intp)
    for own in lists:
        total[own] += np.arange(own.size, 0, -1)
    return total


def most_head_start(lists: Sequence[Ints], shards: Ints, clients: Ints) -> int:
    """Return what the least g_j of connected shards cannot exceed."""
    holders_lengths = np.zeros(int(shards.max()) + 1, dtype=np.intp)
    total = 0
    for client in clients:
        size = lists[client].size
        holders_lengths[lists[client]] += size
        total += size * (size + 1) // 2
    return min(total // shards.size, int(holders_lengths[shards].min()))


def connected_parts(lists: Sequence[Ints], n_shards: int) -> list[tuple[Ints, Ints]]:
    """Return shards and clients of each connected part of who holds what."""
    client = np.repeat(np.arange(len(lists)), [own.size for own in lists])
    shard = np.concatenate(lists)
    size = n_shards + len(lists)
    graph = sparse.coo_array((np.ones(shard.size), (shard, n_shards + client)), shape=(size, size))
    n_parts, label = csgraph.connected_components(graph, directed=False)
    parts = [np.flatnonzero(label == part) for part in range(n_parts)]
    # A part without shards is a client without any.
    return [(part[part < n_shards], part[part >= n_shards] - n_shards) for part in parts if part[0] < n_shards]
