"""The components of a code: parts of the arrivals and shards that have nothing to do with the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from fedgc.codes import Code

Ints = NDArray[np.intp]

#: Components with more coefficients than this in all are not kept.
_MOST_KEPT = 10**6


class Component(NamedTuple):
    """Parts and shards that depend on no others.

    Attributes
    ----------
    parts : ndarray of int, shape (n_parts,)
        Numbers of the parts; none if a shard is held by nobody.
    shards : ndarray of int, shape (n_own_shards,)
        The shards; none if a client holds nothing.
    rows : ndarray of int, shape (k,)
        The parts' rows of the encoding matrix, part by part.
    coefficients : ndarray, shape (k, n_own_shards)
        These rows over these shards.
    groups : ndarray of int, shape (n_own_shards,), or None
        Labels of the shards that change places with each other, numbered from 0 on in every component, so that
        components that are alike have the same.
    """

    parts: Ints
    shards: Ints
    rows: Ints
    coefficients: NDArray[np.float64]
    groups: Ints | None


class _Kept(NamedTuple):
    rows: Ints
    sizes: Ints
    components: list[Component]


#: A search for a deadline asks for the same code's again and again, with other probabilities. They go with the code.
_KEPT: WeakKeyDictionary[Code, _Kept] = WeakKeyDictionary()


def components_of(code: Code, rows_of_parts: Sequence[Ints]) -> list[Component]:
    """Return the components of a code.

    Parameters
    ----------
    code : Code
        The code. Shards that change places have one target, so they belong together whoever holds them.
    rows_of_parts : sequence of ndarray of int
        The rows of the encoding matrix that each part of the arrivals is about; together they are every row, once.
    """
    rows, sizes = np.concatenate(rows_of_parts), np.array([part.size for part in rows_of_parts])
    kept = _KEPT.get(code)
    if kept is not None and np.array_equal(kept.sizes, sizes) and np.array_equal(kept.rows, rows):
        return kept.components
    components = _components(code, rows_of_parts, np.repeat(np.arange(sizes.size), sizes)[np.argsort(rows)])
    if sum(one.coefficients.size for one in components) <= _MOST_KEPT:
        _KEPT[code] = _Kept(rows, sizes, components)
    return components


def _components(code: Code, rows_of_parts: Sequence[Ints], part_of_row: Ints) -> list[Component]:
    n_parts, matrix, label_of = len(rows_of_parts), code.sparse_matrix, code.interchangeable
    copies, n_nodes = matrix.tocoo(), n_parts + code.n_shards
    tail, head = part_of_row[copies.coords[0]], n_parts + copies.coords[1]
    if label_of is not None:
        first = np.unique(label_of, return_index=True)[1]
        tail, head = np.append(tail, n_parts + first[label_of]), np.append(head, np.arange(n_parts, n_nodes))
    edges = sparse.csr_array((np.ones(tail.size), (tail, head)), shape=(n_nodes, n_nodes))
    _, label = connected_components(edges, directed=False)
    n_labels = int(label.max()) + 1
    parts_of = _grouped(label[:n_parts].astype(np.intp), n_labels)
    shards_of = _grouped(label[n_parts:].astype(np.intp), n_labels)
    components = []
    for parts, shards in zip(parts_of, shards_of, strict=True):
        rows = np.concatenate([np.zeros(0, dtype=np.intp), *(rows_of_parts[index] for index in parts)])
        groups = None if label_of is None else np.unique(label_of[shards], return_inverse=True)[1].astype(np.intp)
        components.append(Component(parts, shards, rows, matrix[rows][:, shards].toarray(), groups))
    return components


def _grouped(label: Ints, n_labels: int) -> list[Ints]:
    order = np.argsort(label, kind="stable")
    ends = np.cumsum(np.bincount(label, minlength=n_labels))
    return np.split(order, ends[:-1])
