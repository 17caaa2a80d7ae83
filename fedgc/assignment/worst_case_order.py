"""Order work lists such that every shard has a copy after as little work as possible, whoever is slow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from scipy.sparse import csgraph

from fedgc.assignment.backups import residual_error
from fedgc.assignment.result import Assignment
from fedgc.validation import check_indices, check_integer

Ints = NDArray[np.intp]

#: Exchanges tried per shard copy, unless the bound is reached before.
_TRIES_PER_COPY = 400


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
    checked = _checked(lists, n_shards)
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
    checked = _checked(holdings, n_shards)
    most = min(_most_head_start(checked, shards, clients) for shards, clients in _components(checked, n_shards))
    return sum(own.size for own in checked) - most


def worst_case_lists(holdings: Sequence[ArrayLike], n_shards: int, *, rng: np.random.Generator) -> list[Ints]:
    """Order each client's shards for the least Q, the most work while some shard is missing.

    Parameters
    ----------
    holdings : sequence of array_like of int
        For each client, the shards of its list, in any order. A client may have none.
    n_shards : int
        Number of shards.
    rng : numpy.random.Generator
        Source of the search's random choices.

    Returns
    -------
    list of ndarray of int
        The lists, for :class:`fedgc.codes.WorkLists`.

    Raises
    ------
    ValueError
        If a client holds a shard twice or one that is not there, or nobody holds a shard.

    Notes
    -----
    Where all clients hold as many shards as there are copies of each, as with cyclic repetition, the holdings are a
    union of perfect matchings (König), and if the k-th one tells the k-th shard of every list, each shard stands once
    in every place: all Q_j are equal, which is the optimum.

    Elsewhere a random order is improved. A shard with the least head start (see :func:`worst_case_bound`) changes
    places with one before it in a list, if that does not fall below it; this may leave all as good as before, so the
    search wanders among equally good orders, and never gets worse. It ends at the bound, or after 400 tries per copy.

    References
    ----------
    A. Ramamoorthy, R. Meng, V. S. Girimaji, arXiv 2405.19509, for the measure and the regular case.

    Examples
    --------
    >>> lists = worst_case_lists([[0, 1], [1, 2], [2, 3], [3, 0]], 4, rng=np.random.default_rng(0))
    >>> work_while_missing(lists, 4).tolist()
    [5, 5, 5, 5]
    """
    checked = _checked(holdings, n_shards)
    ordered = [rng.permutation(own) for own in checked]
    for shards, clients in _components(checked, n_shards):
        part = [checked[client] for client in clients]
        best = _by_matchings(part, shards)
        if best is None:
            goal = _most_head_start(checked, shards, clients)
            best = _improved([ordered[client].tolist() for client in clients], shards, goal, rng)
        for client, own in zip(clients, best, strict=True):
            ordered[client] = own
    return ordered


def in_worst_case_order(assignment: Assignment, reach: NDArray[np.float64], *, rng: np.random.Generator) -> Assignment:
    """Return an assignment with its work lists in the order of :func:`worst_case_lists`.

    Parameters
    ----------
    assignment : Assignment
        Work lists; the full schedule is returned as it is.
    reach : ndarray, shape (n_clients, K + 1)
        Probability of each client to have done at least k shards by the deadline.
    rng : numpy.random.Generator
        Source of the search's random choices.

    Notes
    -----
    Whose own share a shard is does not matter to the worst case, so each shard counts as a share of its own.

    Examples
    --------
    >>> from fedgc.assignment import assign
    >>> reach = np.array([[1.0, 0.9, 0.8, 0.7], [1.0, 0.5, 0.1, 0.0]])
    >>> lists = assign(reach, 3, holders=2, schedule="work-list")
    >>> other = in_worst_case_order(lists, reach, rng=np.random.default_rng(0))
    >>> [int(work_while_missing(one.lists, 3).max()) for one in (lists, other)]
    [2, 2]
    """
    if assignment.schedule != "work-list":
        return assignment
    lists = worst_case_lists(assignment.lists, assignment.n_shards, rng=rng)
    changed = replace(
        assignment,
        list_shards=np.concatenate(lists),
        list_segments=np.concatenate([np.arange(own.size) for own in lists]),
    )
    return replace(changed, residual_error=residual_error(changed, reach))


def _checked(lists: Sequence[ArrayLike], n_shards: int) -> list[Ints]:
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


def _most_head_start(lists: Sequence[Ints], shards: Ints, clients: Ints) -> int:
    """Return what the least g_j of connected shards cannot exceed."""
    holders_lengths = np.zeros(int(shards.max()) + 1, dtype=np.intp)
    total = 0
    for client in clients:
        size = lists[client].size
        holders_lengths[lists[client]] += size
        total += size * (size + 1) // 2
    return min(total // shards.size, int(holders_lengths[shards].min()))


def _components(lists: Sequence[Ints], n_shards: int) -> list[tuple[Ints, Ints]]:
    """Return shards and clients of each connected part of who holds what."""
    client = np.repeat(np.arange(len(lists)), [own.size for own in lists])
    shard = np.concatenate(lists)
    size = n_shards + len(lists)
    graph = sparse.coo_array((np.ones(shard.size), (shard, n_shards + client)), shape=(size, size))
    n_parts, label = csgraph.connected_components(graph, directed=False)
    parts = [np.flatnonzero(label == part) for part in range(n_parts)]
    # A part without shards is a client without any.
    return [(part[part < n_shards], part[part >= n_shards] - n_shards) for part in parts if part[0] < n_shards]


def _by_matchings(lists: Sequence[Ints], shards: Ints) -> list[Ints] | None:
    """Return lists with each shard once in every place; None where lists and numbers of copies are not all as long."""
    length = lists[0].size
    column = np.searchsorted(shards, np.concatenate(lists))
    copies = np.bincount(column, minlength=shards.size)
    if len(lists) != shards.size or any(own.size != length for own in lists) or (copies != length).any():
        return None
    left = sparse.csr_array(
        (np.ones(column.size, dtype=np.int8), (np.repeat(np.arange(len(lists)), length), column)),
        shape=(len(lists), shards.size),
    ).tolil()
    ordered = np.empty((len(lists), length), dtype=np.intp)
    for place in range(length):
        match = csgraph.maximum_bipartite_matching(left.tocsr(), perm_type="column")
        ordered[:, place] = shards[match]
        left[np.arange(len(lists)), match] = 0
    return list(ordered)


def _improved(lists: list[list[int]], shards: Ints, goal: int, rng: np.random.Generator) -> list[Ints]:
    """Exchange shards in lists until the least head start is the goal, or for so many tries."""
    start = dict.fromkeys(shards.tolist(), 0)
    holders: dict[int, list[int]] = {shard: [] for shard in start}
    for client, own in enumerate(lists):
        for place, shard in enumerate(own):
            start[shard] += len(own) - place
            holders[shard].append(client)
    for _ in range(_TRIES_PER_COPY * sum(map(len, lists))):
        least = min(start.values())
        if least >= goal:
            break
        behind = [shard for shard, value in start.items() if value == least]
        shard = behind[int(rng.integers(len(behind)))]
        client = holders[shard][int(rng.integers(len(holders[shard])))]
        own = lists[client]
        place = own.index(shard)
        if place == 0:
            continue
        other_place = int(rng.integers(place))
        other, step = own[other_place], place - other_place
        if start[other] - step >= least:
            own[place], own[other_place] = other, shard
            start[shard] += step
            start[other] -= step
    return [np.array(own, dtype=np.intp) for own in lists]
