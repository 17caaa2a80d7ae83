"""Deal shards to blocks whose sizes are known."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from fedgc.assignment.instance import Instance

Ints = NDArray[np.intp]
Counts = sparse.coo_array[np.intp, tuple[int, int]]


def deal_shards(instance: Instance, counts: Ints | Counts) -> Ints:
    """Return the block of each shard, given how many of each residency class every block holds, (n_shards,).

    Blocks get runs of consecutive shards of a class, in order. `counts` is of shape (n_blocks, n_classes).
    """
    table = sparse.coo_array(counts)
    order = np.lexsort((table.row, table.col))
    of_shard = np.empty(instance.n_shards, dtype=np.intp)
    of_shard[np.argsort(instance.class_of_shard, kind="stable")] = np.repeat(table.row[order], table.data[order])
    return of_shard


def deal_like(instance: Instance, counts: Counts, members: Ints, block_of_client: Ints, block_of_shard: Ints) -> Ints:
    """Deal shards to new blocks such that their members hold many of them already.

    Parameters
    ----------
    instance : Instance
        The instance.
    counts : coo_array
        As in :func:`deal_shards`, of the new blocks.
    members : ndarray of int, shape (n_blocks, n_slots)
        Members of the new blocks, padded with n_clients.
    block_of_client, block_of_shard : ndarray of int
        The old assignment; -1 for a client that held nothing.

    Returns
    -------
    ndarray of int, shape (n_shards,)
        New block of each shard. Pairs of a new and an old block are served in the order of the members they have in
        common, larger old blocks first; what is left over goes where there is room.
    """
    table = sparse.coo_array(counts)
    left = {
        (int(row), int(c)): int(count) for row, c, count in zip(table.row, table.col, table.data, strict=True) if count
    }
    pools: dict[tuple[int, int], list[int]] = {}
    for shard, (block, c) in enumerate(zip(block_of_shard.tolist(), instance.class_of_shard.tolist(), strict=True)):
        pools.setdefault((block, c), []).append(shard)
    old = np.append(block_of_client, -1)[members]
    new_row, slot = np.nonzero(old >= 0)
    pairs, common = np.unique(np.stack([new_row, old[new_row, slot]]), axis=1, return_counts=True)
    size = np.bincount(block_of_shard, minlength=int(old.max()) + 1)
    classes: dict[int, list[int]] = {}
    for row, c in left:
        classes.setdefault(row, []).append(c)
    dealt = np.full(instance.n_shards, -1, dtype=np.intp)
    for index in np.lexsort((-size[pairs[1]], -common)):
        row, block = (int(entry) for entry in pairs[:, index])
        for c in classes.get(row, []):
            pool = pools.get((block, c), [])
            count = min(left[row, c], len(pool))
            dealt[pool[:count]] = row
            del pool[:count]
            left[row, c] -= count
    rest: dict[int, list[int]] = {}
    for shard in np.flatnonzero(dealt < 0).tolist():
        rest.setdefault(int(instance.class_of_shard[shard]), []).append(shard)
    for (row, c), count in left.items():
        for _ in range(count):
            dealt[rest[c].pop()] = row
    return dealt
