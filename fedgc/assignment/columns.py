"""All blocks that a small instance can have, and whether shards with residency rules fit into some of them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import comb

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph

from fedgc.assignment.instance import Instance

Ints = NDArray[np.intp]

#: With more clients, shards in all columns, or residency classes, an instance is not small.
_MOST_CLIENTS = 12
_MOST_SHARDS = 600_000
_MOST_CLASSES = 8


@dataclass(frozen=True, eq=False)
class Columns:
    """Every member set that a block can have, with its cost at every size; set 0 is empty.

    Attributes
    ----------
    instance : Instance
        The instance.
    members : ndarray of int, shape (n_sets, n_slots)
        Members of each set, ascending, padded with n_clients.
    bits : ndarray of int, shape (n_sets,)
        The same as a bit mask of clients.
    cap : ndarray of int, shape (n_sets,)
        Most shards.
    cost : ndarray, shape (n_sets, n_shards + 1)
        Cost of a block with k shards, infinite if k is 0 or over the cap; only the empty set has none and costs none.
    reaches : ndarray of bool, shape (n_sets, 2 ** n_classes)
        Whether the set may hold any of the residency classes in a set of classes, given as a bit mask.
    """

    instance: Instance
    members: Ints
    bits: Ints
    cap: Ints
    cost: NDArray[np.float64]
    reaches: NDArray[np.bool_]

    @cached_property
    def need(self) -> Ints:
        """How many shards the classes of every set of classes have together, (2 ** n_classes,)."""
        return _subset_bits(len(self.instance.allowed)) @ self.instance.class_sizes

    def may_hold(self) -> NDArray[np.bool_]:
        """Return which classes each set may hold, (n_sets, n_classes)."""
        return np.asarray(self.reaches[:, 1 << np.arange(len(self.instance.allowed))])


def is_small(instance: Instance) -> bool:
    """Return whether all columns of the instance can be listed."""
    n, m = instance.n_clients, instance.n_shards
    if n > _MOST_CLIENTS or len(instance.allowed) > _MOST_CLASSES:
        return False
    slots = sum(count * comb(n, count) for count in range(instance.least, min(instance.most, n) + 1))
    return slots * m * (m + 1) // 2 <= _MOST_SHARDS


def make_columns(instance: Instance, *, with_cost: bool = True) -> Columns:
    """List the columns; those that no constraint allows a single shard are left out."""
    n, m, n_classes = instance.n_clients, instance.n_shards, len(instance.allowed)
    rows = [np.full((1, instance.most), n, dtype=np.intp)]
    for count in range(instance.least, min(instance.most, n) + 1):
        sets = np.array(list(itertools.combinations(range(n), count)), dtype=np.intp).reshape(-1, count)
        rows.append(np.pad(sets, ((0, 0), (0, instance.most - count)), constant_values=n))
    members = np.concatenate(rows)
    cap = np.where(instance.domains_differ(members), instance.cap(members), 0)
    may = np.stack([instance.may_hold(np.full(len(cap), c), members) for c in range(n_classes)], axis=1)
    cap = np.where((may & (instance.class_sizes > 0)).any(axis=1), cap, 0)
    keep = (cap > 0) | (np.arange(cap.size) == 0)
    members, cap, may = members[keep], cap[keep], may[keep]
    cost = np.full((cap.size, m + 1), np.inf)
    cost[0, 0] = 0.0
    if with_cost:
        which, sizes = np.nonzero((np.arange(m + 1) >= 1) & (np.arange(m + 1) <= cap[:, None]))
        cost[which, sizes] = instance.cost(members[which], sizes, thorough=True)
    bits = np.where(members < n, 1 << np.minimum(members, 62), 0).sum(axis=1)
    may[0] = False
    return Columns(instance, members, bits, cap, cost, (may @ _subset_bits(n_classes).T.astype(np.intp)) > 0)


def _subset_bits(n_classes: int) -> Ints:
    return (np.arange(2**n_classes)[:, None] >> np.arange(n_classes)) & 1


def classes_of_blocks(may_hold: NDArray[np.bool_], sizes: Sequence[int] | Ints, class_sizes: Ints) -> Ints | None:
    """Divide the shards of each residency class among blocks of given sizes.

    Parameters
    ----------
    may_hold : ndarray of bool, shape (n_blocks, n_classes)
        Which classes each block may hold.
    sizes : sequence of int, shape (n_blocks,)
        Shards in each block; they sum to the number of shards.
    class_sizes : ndarray of int, shape (n_classes,)
        Shards in each class.

    Returns
    -------
    ndarray of int, shape (n_blocks, n_classes), or None
        Shards of each class in each block; None if there is no such division. It is a maximum flow.

    Examples
    --------
    >>> classes_of_blocks(np.array([[True, False], [True, True]]), [2, 2], np.array([3, 1])).tolist()
    [[2, 0], [1, 1]]
    """
    n_blocks, n_classes = may_hold.shape
    sizes = np.asarray(sizes)
    # Nodes: source, classes, blocks, sink.
    block, of_class = np.nonzero(may_hold)
    first, sink = 1 + n_classes, 1 + n_classes + n_blocks
    tail = np.concatenate([np.zeros(n_classes, dtype=np.intp), 1 + of_class, first + np.arange(n_blocks)])
    head = np.concatenate([1 + np.arange(n_classes), first + block, np.full(n_blocks, sink)])
    room = np.concatenate([class_sizes, np.minimum(class_sizes[of_class], sizes[block]), sizes]).astype(np.int32)
    graph = sparse.csr_array((room, (tail, head)), shape=(sink + 1, sink + 1))
    result = csgraph.maximum_flow(graph, 0, sink)
    if result.flow_value < class_sizes.sum():
        return None
    flow = result.flow[1 : 1 + n_classes, first:sink].toarray()
    return np.asarray(flow.T, dtype=np.intp)
