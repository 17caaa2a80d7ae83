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
from fedgc.assignment.worst_case_work import Ints, check_lists, connected_parts, most_head_start

#: Exchanges tried per shard copy, unless the bound is reached before.
_TRIES_PER_COPY = 400


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

    Elsewhere a random order is improved. A shard with the least head start (see
    :func:`fedgc.assignment.worst_case_bound`) changes places with one before it in a list, if that does not fall below
    it; this may leave all as good as before, so the search wanders among equally good orders, and never gets worse. It
    ends at the bound, or after 400 tries per copy.

    References
    ----------
    A. Ramamoorthy, R. Meng, V. S. Girimaji, arXiv 2405.19509, for the measure and the regular case.

    Examples
    --------
    >>> lists = worst_case_lists([[0, 1], [1, 2], [2, 3], [3, 0]], 4, rng=np.random.default_rng(0))
    >>> from fedgc.assignment import work_while_missing
    >>> work_while_missing(lists, 4).tolist()
    [5, 5, 5, 5]
    """
    checked = check_lists(holdings, n_shards)
    ordered = [rng.permutation(own) for own in checked]
    for shards, clients in connected_parts(checked, n_shards):
        part = [checked[client] for client in clients]
        best = _by_matchings(part, shards)
        if best is None:
            goal = most_head_start(checked, shards, clients)
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
    Whose own share a shard is does not matter to the worst case, so each shard counts as a share of its own. The order
    depends on who holds what alone, and not on the order before: lists that have it keep it.

    Examples
    --------
    >>> from fedgc.assignment import assign, work_while_missing
    >>> reach = np.array([[1.0, 0.9, 0.8, 0.7], [1.0, 0.5, 0.1, 0.0]])
    >>> lists = assign(reach, 3, holders=2, schedule="work-list")
    >>> other = in_worst_case_order(lists, reach, rng=np.random.default_rng(0))
    >>> [int(work_while_missing(one.lists, 3).max()) for one in (lists, other)]
    [2, 2]
    """
    if assignment.schedule != "work-list":
        return assignment
    lists = worst_case_lists([np.sort(own) for own in assignment.lists], assignment.n_shards, rng=rng)
    changed = replace(
        assignment,
        list_shards=np.concatenate(lists),
        list_segments=np.concatenate([np.arange(own.size) for own in lists]),
    )
    return replace(changed, residual_error=residual_error(changed, reach))


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
