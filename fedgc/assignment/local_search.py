"""Local search for large instances: many random re-deals of two rows at once, and shards from dear to cheap rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedgc.assignment.greedy import Rows
from fedgc.assignment.instance import Instance

Ints = NDArray[np.intp]
Floats = NDArray[np.float64]

#: Bounds the time of a search: about the clients, and for work lists a quarter of the copies, over all sweeps.
_BUDGET = 8_000_000
_MOST_SWEEPS = 1000
_SHIFT_EVERY = 8
#: Of the median cost of a row: how much worse an offer may be at first, where there are sweeps enough to cool down.
_WARMTH = 0.2


def search_large(instance: Instance, starts: list[Rows], rng: np.random.Generator) -> Rows:
    """Shift shards in every start, take the best, and improve it by sweeps within a fixed budget.

    Notes
    -----
    A sweep pairs the rows at random and makes every pair an offer: two slots exchanged (a move where one is empty), or
    all slots dealt anew (which may merge two rows, split one, or bring in an idle client), with the shards kept,
    divided by speed or shifted by one. Offers that break no rule and lower the pair's cost are taken; pairs do not
    interact, so all of them are judged at once. Where the budget allows many sweeps, the first ones also take slightly
    worse offers, as in simulated annealing. Every few sweeps, shards go from the rows where one fewer saves the
    most to those where one more costs the least.
    """
    copies = instance.n_shards * instance.most if instance.schedule == "work-list" else 0
    sweeps = int(np.clip(_BUDGET // (instance.n_clients + copies // 4), 16, _MOST_SWEEPS))

    def total(rows: Rows) -> float:
        return float(instance.cost(rows.members, rows.sizes, thorough=False).sum())

    # Shifting decides between starts, but it takes time, so only the two best by speed alone get there.
    rows = min((shift_shards(instance, rows, rounds=3) for rows in sorted(starts, key=total)[:2]), key=total)
    table = _Table(rows.members.copy(), rows.sizes.copy(), rows.residency_class)
    table.cost = instance.cost(table.members, table.sizes, thorough=False)
    warmth = float(np.median(table.cost[table.sizes > 0])) * (_WARMTH if sweeps == _MOST_SWEEPS else 0.0)
    for sweep in range(sweeps):
        heat = warmth * max(0.0, 1.0 - sweep / (0.8 * sweeps)) ** 2
        _sweep(instance, table, rng, heat)
        if sweep % _SHIFT_EVERY == _SHIFT_EVERY - 1:
            table.sizes = shift_shards(instance, table.rows(), rounds=1, coarse=False).sizes
            table.cost = instance.cost(table.members, table.sizes, thorough=False)
    return min(rows, shift_shards(instance, table.rows(), rounds=4, coarse=False), key=total)


class _Table:
    """Rows that a sweep changes in place, with their cost."""

    def __init__(self, members: Ints, sizes: Ints, classes: Ints) -> None:
        self.members, self.sizes, self.classes = members, sizes, classes
        self.cost: Floats = np.zeros(sizes.size)

    def rows(self) -> Rows:
        return Rows(self.members, self.sizes, self.classes)


def _sweep(instance: Instance, table: _Table, rng: np.random.Generator, heat: float) -> None:
    """Make one offer to every pair of rows, and change the table where it is taken."""
    members, sizes, classes, cost = table.members, table.sizes, table.classes, table.cost
    n_rows, n_slots = members.shape
    pairs = rng.permutation(n_rows)[: n_rows // 2 * 2].reshape(-1, 2)
    if rng.random() < 0.25:
        # Rows far apart in cost have the most to give each other.
        pairs = np.argsort(cost, kind="stable")
        pairs = np.stack([pairs[: n_rows // 2], pairs[::-1][: n_rows // 2]], axis=1)
    both = members[pairs].reshape(-1, 2 * n_slots)
    new = both.copy()
    if rng.random() < 0.7:
        one, two = rng.integers(n_slots, size=len(pairs)), n_slots + rng.integers(n_slots, size=len(pairs))
        at = np.arange(len(pairs))
        new[at, one], new[at, two] = both[at, two], both[at, one]
    else:
        new = rng.permuted(both, axis=1)
    new = np.sort(new.reshape(-1, 2, n_slots), axis=2)
    free = classes[pairs[:, 0]] == classes[pairs[:, 1]]
    total = sizes[pairs].sum(axis=1)
    new_sizes = sizes[pairs]
    choice = rng.integers(4)
    if choice == 0:
        speed = instance.speed[new].sum(axis=2)
        first = np.rint(total * speed[:, 0] / np.maximum(speed.sum(axis=1), 1e-12)).astype(np.intp)
    elif choice == 1:
        first = np.clip(new_sizes[:, 0] + rng.integers(-1, 2, size=len(pairs)), 0, total)
    elif choice == 2:
        first = np.where(rng.random(len(pairs)) < 0.5, total, 0)  # a merge, if the members fit
    else:
        first = new_sizes[:, 0]
    # Across residency classes sizes stay, so that every class keeps the room that it needs.
    new_sizes[:, 0] = np.where(free, first, new_sizes[:, 0])
    new_sizes[:, 1] = total - new_sizes[:, 0]
    flat, flat_sizes = new.reshape(-1, n_slots), new_sizes.ravel()
    legal = _legal(instance, flat, flat_sizes, classes[pairs.ravel()]).reshape(-1, 2).all(axis=1)
    legal &= (new != both.reshape(new.shape)).any(axis=(1, 2)) | (new_sizes != sizes[pairs]).any(axis=1)
    pairs, flat, flat_sizes = pairs[legal], new[legal].reshape(-1, n_slots), new_sizes[legal].ravel()
    new_cost = instance.cost(flat, flat_sizes, thorough=False)
    before = cost[pairs].sum(axis=1)
    bar = before * (1.0 - 1e-9) + heat * rng.exponential(size=before.size)
    taken = np.repeat(new_cost.reshape(-1, 2).sum(axis=1) < bar, 2)
    rows = pairs.ravel()[taken]
    members[rows], sizes[rows], cost[rows] = flat[taken], flat_sizes[taken], new_cost[taken]


def _legal(instance: Instance, members: Ints, sizes: Ints, classes: Ints) -> NDArray[np.bool_]:
    """Return which rows break no rule; a row without shards is a set of idle clients and may be anything."""
    count = (members < instance.n_clients).sum(axis=1)
    held = (count >= instance.least) & (sizes <= instance.cap(members))
    held &= instance.domains_differ(members) & instance.may_hold(classes, members)
    return np.asarray(held | (sizes == 0))


def shift_shards(instance: Instance, rows: Rows, *, rounds: int, coarse: bool = True) -> Rows:
    """Move shards from the rows where fewer save the most to the rows where more cost the least."""
    members, sizes = rows.members, rows.sizes.copy()
    able = _legal(instance, members, np.ones_like(sizes), rows.residency_class)
    cap = np.where(able, instance.cap(members), 0)
    cost = instance.cost(members, sizes, thorough=False)
    for step in [*(_coarse_steps(sizes) if coarse else []), *[1] * rounds]:
        give, take = np.flatnonzero(sizes >= step), np.flatnonzero(sizes + step <= cap)
        saving = cost[give] - instance.cost(members[give], sizes[give] - step, thorough=False)
        extra = instance.cost(members[take], sizes[take] + step, thorough=False) - cost[take]
        first, last = np.argsort(-saving, kind="stable"), np.argsort(extra, kind="stable")
        give, saving, take, extra = give[first], saving[first], take[last], extra[last]
        allowed = _may_give(instance, rows.residency_class, sizes, give, step)
        give, saving = give[allowed], saving[allowed]
        n_pairs = min(give.size, take.size)
        gain = saving[:n_pairs] - extra[:n_pairs]
        good = int(np.count_nonzero(gain > 1e-12 * np.abs(saving[:n_pairs])))
        # A row that both gives and takes would be in two trades; the later trade, with less to gain, is dropped.
        give, take = give[:good], take[:good]
        clash = np.isin(take, give) | np.isin(give, take)
        give, take = give[~clash], take[~clash]
        if give.size == 0:
            continue
        sizes[give] -= step
        sizes[take] += step
        changed = np.concatenate([give, take])
        cost[changed] = instance.cost(members[changed], sizes[changed], thorough=False)
    return Rows(members, sizes, rows.residency_class)


def _coarse_steps(sizes: Ints) -> list[int]:
    """Return numbers of shards to shift at once, halving from half of the largest row."""
    steps, step = [], int(sizes.max()) // 2
    while step > 1:
        steps.append(step)
        step //= 2
    return steps


def _may_give(instance: Instance, classes: Ints, sizes: Ints, give: Ints, step: int) -> NDArray[np.bool_]:
    """Return which rows may give `step` shards away such that every residency class keeps room for its own."""
    spare = np.bincount(classes, sizes, len(instance.allowed)) - instance.class_sizes
    spare[0] = np.inf  # class 0 may live anywhere
    own = classes[give]
    order = np.argsort(own, kind="stable")
    turn = np.empty(give.size, dtype=np.intp)
    turn[order] = np.arange(give.size) - np.searchsorted(own[order], own[order])
    return np.asarray((turn + 1) * step <= spare[own])
