"""Greedy starts for large instances: pools for the residency classes, groups within them, shards by speed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedgc.assignment.instance import Instance
from fedgc.assignment.work_list_order import shares_by_speed

Ints = NDArray[np.intp]
Floats = NDArray[np.float64]

STYLES = ("mixed", "alike", "by room")


@dataclass(frozen=True, eq=False)
class Rows:
    """Blocks as a table, with rows for idle clients as well: they have members and no shards.

    Attributes
    ----------
    members : ndarray of int, shape (n_rows, n_slots)
        Members, padded with n_clients.
    sizes : ndarray of int, shape (n_rows,)
        Shards in each row.
    residency_class : ndarray of int, shape (n_rows,)
        A row may hold shards of this class and of class 0, and all its members are allowed to.
    """

    members: Ints
    sizes: Ints
    residency_class: Ints


def greedy_starts(instance: Instance) -> list[Rows]:
    """Return feasible rows in several styles: strong clients with weak ones, like with like, and by room.

    Where blocks may differ in their number of members, each style comes with the fewest and with the most.
    """
    starts: list[Rows] = []
    for holders in dict.fromkeys((instance.least, min(instance.most, 8 + instance.least))):
        for style in STYLES:
            if style == "by room" and starts:
                continue  # it wastes the least room, and is only needed where room is scarce
            rows = _start(instance, holders, style)
            if rows is not None:
                starts.append(rows)
    return starts


def _start(instance: Instance, holders: int, style: str) -> Rows | None:
    rows: list[Ints] = []
    classes: list[Ints] = []
    rest = np.flatnonzero(instance.limit[:-1] > 0)
    for c, pool in _pools(instance, holders, rest):
        groups = group_clients(instance, pool, holders, style)
        rows.append(groups)
        classes.append(np.full(groups.shape[0], c))
    members, residency_class = np.concatenate(rows), np.concatenate(classes)
    members = np.pad(members, ((0, 0), (0, instance.most - holders)), constant_values=instance.n_clients)
    cap = instance.cap(members)
    weight = np.minimum(_capability(instance, members), cap)
    sizes = allot_by_class(instance, weight, cap, residency_class)
    if sizes is None:
        return None
    # Idle clients get rows of their own, so that the search can bring them in.
    used = np.zeros(instance.n_clients + 1, dtype=np.bool_)
    used[members] = True
    idle = rest[~used[rest]]
    idle_rows = np.full((idle.size, instance.most), instance.n_clients, dtype=np.intp)
    idle_rows[:, 0] = idle
    return Rows(
        np.concatenate([members, idle_rows]),
        np.concatenate([sizes, np.zeros(idle.size, dtype=np.intp)]),
        np.concatenate([residency_class, np.zeros(idle.size, dtype=np.intp)]),
    )


def _capability(instance: Instance, members: Ints) -> Floats:
    """Return the expected number of shards that each row gets done, as a weight for its size."""
    if instance.schedule == "work-list":
        return np.asarray(instance.speed[members].sum(axis=1) + 1e-9)
    missed = np.ones((members.shape[0], instance.miss.shape[1] - 1))
    for slot in members.T:
        missed *= instance.miss[slot, 1:]
    return np.asarray((1.0 - missed).sum(axis=1) + 1e-9)


def _pools(instance: Instance, holders: int, rest: Ints) -> list[tuple[int, Ints]]:
    """Give each residency class clients in proportion to its shards, the scarcest class first."""
    size, limit, speed = instance.class_sizes, instance.limit, instance.speed
    wanted = [c for c in range(1, len(instance.allowed)) if size[c] > 0]
    free = np.zeros(instance.n_clients + 1, dtype=np.bool_)
    free[rest] = True
    # Clients that few classes can use are taken first, so that the others stay free.
    uses = np.zeros(instance.n_clients + 1, dtype=np.intp)
    for c in wanted:
        uses[instance.allowed[c]] += 1
    per_shard = speed[rest].sum() / instance.n_shards
    pools: list[tuple[int, Ints]] = []
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
        pools.append((c, taken))
    pools.append((0, np.flatnonzero(free)))
    return pools


def group_clients(instance: Instance, pool: Ints, holders: int, style: str) -> Ints:
    """Form groups of `holders` clients from different domains, (n_groups, holders)."""
    key = instance.limit[pool] if style == "by room" else instance.speed[pool]
    order = pool[np.argsort(-key, kind="stable")]
    n_groups = order.size // holders
    if style == "mixed":
        # Strata from fast to slow; every second one is reversed, so that the sums of a group's speeds are alike.
        strata = order[: n_groups * holders].reshape(holders, n_groups)
        strata[1::2] = strata[1::2, ::-1]
        order = np.concatenate([strata.T.ravel(), order[n_groups * holders :]])
    if instance.constraints.domain is None:
        return np.asarray(order[: n_groups * holders].reshape(n_groups, holders))
    groups = _group_in_order(instance.domain, order, holders)
    return groups if groups.shape[0] >= (n_groups * 9) // 10 else _group_round(instance.domain, order, holders)


def _group_in_order(domain: Ints, order: Ints, holders: int) -> Ints:
    """Put every client into the first group that still wants one from its domain."""
    groups: list[list[int]] = []
    inside: list[set[int]] = []
    first_open = 0
    seen: dict[int, int] = {}  # no group before this one wants the domain
    for client, where in zip(order.tolist(), domain[order].tolist(), strict=True):
        group = max(seen.get(where, 0), first_open)
        while group < len(groups) and (len(groups[group]) == holders or where in inside[group]):
            group += 1
        if group == len(groups):
            groups.append([])
            inside.append(set())
        groups[group].append(client)
        inside[group].add(where)
        seen[where] = group + 1
        while first_open < len(groups) and len(groups[first_open]) == holders:
            first_open += 1
    full = [group for group in groups if len(group) == holders]
    return np.array(full, dtype=np.intp).reshape(-1, holders)


def _group_round(domain: Ints, order: Ints, holders: int) -> Ints:
    """Deal the clients, domain by domain, round the largest number of groups for which no group meets one twice."""
    _, inverse, count = np.unique(domain[order], return_inverse=True, return_counts=True)
    low, high = 0, order.size // holders
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if np.minimum(count, middle).sum() >= middle * holders else (low, middle - 1)
    if low == 0:
        return np.zeros((0, holders), dtype=np.intp)
    by_domain = np.argsort(inverse, kind="stable")
    within = np.arange(order.size) - np.repeat(np.cumsum(count) - count, count)
    dealt = order[by_domain[within < low]][: low * holders]
    return np.asarray(dealt.reshape(holders, low).T)


def allot(total: int, weight: Floats, cap: Ints) -> Ints:
    """Divide `total` in proportion to `weight` within `cap`, by largest remainders; total is at most the caps' sum."""
    return np.asarray(shares_by_speed(np.array([total]), weight[None], cap[None])[0])


def allot_by_class(instance: Instance, weight: Floats, cap: Ints, residency_class: Ints) -> Ints | None:
    """Divide the shards among rows by weight such that each residency class has room for its shards; None if none."""
    need = instance.class_sizes
    room = np.bincount(residency_class, cap, need.size).astype(np.intp)
    if room.sum() < instance.n_shards or (room[1:] < need[1:]).any():
        return None
    sizes = allot(instance.n_shards, weight, cap)
    fixed = np.zeros(need.size, dtype=np.bool_)
    while True:
        have = np.bincount(residency_class, sizes, need.size)
        short = (have < need) & ~fixed
        short[0] = False
        if not short.any():
            return sizes
        fixed |= short
        for c in np.flatnonzero(short):
            rows = residency_class == c
            sizes[rows] = allot(int(need[c]), weight[rows], cap[rows])
        others = ~fixed[residency_class]
        sizes[others] = allot(int(instance.n_shards - need[fixed].sum()), weight[others], cap[others])
