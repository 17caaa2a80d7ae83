"""Pools of clients from which blocks are formed where shards have residency rules."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedgc.assignment.instance import Instance

Ints = NDArray[np.intp]


def pooled_groups(instance: Instance, holders: int, rest: Ints) -> list[Ints]:
    """Give each residency class clients of its own in proportion to its shards, the scarcest class first."""
    size, limit, speed = instance.class_sizes, instance.limit, instance.speed
    wanted = [c for c in range(1, len(instance.allowed)) if size[c] > 0]
    free = np.zeros(instance.n_clients + 1, dtype=np.bool_)
    free[rest] = True
    # Clients that few classes can use are taken first, so that the others stay free.
    uses = np.zeros(instance.n_clients + 1, dtype=np.intp)
    for c in wanted:
        uses[instance.allowed[c]] += 1
    per_shard = speed[rest].sum() / instance.n_shards
    pools: list[Ints] = []
    for c in sorted(wanted, key=lambda c: (float(limit[instance.allowed[c]].sum()) / size[c], c)):
        allowed = instance.allowed[c]
        clients = allowed[free[allowed]] if allowed is not None else rest
        # Ample room first, so that few clients do; beyond what is scarce, their speed decides how many.
        clients = clients[np.lexsort((-limit[clients], uses[clients]))]
        enough = (np.cumsum(limit[clients]) >= holders * size[c]) & (np.cumsum(speed[clients]) >= per_shard * size[c])
        count = int(np.argmax(enough)) + 1 if enough.any() else clients.size
        if instance.constraints.domain is not None or instance.constraints.storage is not None:
            count += count // 2 + holders  # groups waste some room
        taken = clients[: -(-count // holders) * holders]
        free[taken] = False
        pools.append(taken)
    pools.append(np.flatnonzero(free))
    return pools


def kindred_groups(instance: Instance, holders: int, rest: Ints) -> list[Ints]:
    """Put clients together that may hold the same classes; those left over go with others that differ little.

    Of clients in the order of what they may hold, scarce classes first, neighbours share the scarce ones.
    """
    size, limit = instance.class_sizes, instance.limit
    wanted = [c for c in range(1, len(instance.allowed)) if size[c] > 0]
    rank = np.zeros(instance.n_clients + 1, dtype=np.intp)
    for c in sorted(wanted, key=lambda c: (-float(limit[instance.allowed[c]].sum()) / size[c], c)):
        may = np.zeros(instance.n_clients + 1, dtype=np.intp)
        may[instance.allowed[c]] = rank.size
        # From the least scarce class to the scarcest, which so counts first.
        rank = np.unique(rank + may, return_inverse=True)[1]
    order = rest[np.argsort(-rank[rest], kind="stable")]
    pools: list[Ints] = []
    over: list[Ints] = []
    for alike in np.split(order, np.flatnonzero(np.diff(rank[order])) + 1):
        whole = alike.size // holders * holders
        if whole:
            pools.append(alike[:whole])
        over.append(alike[whole:])
    left = np.concatenate(over)
    pools += np.split(left, np.arange(holders, left.size, holders))
    return pools
