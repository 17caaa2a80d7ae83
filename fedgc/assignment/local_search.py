"""Local search for large instances: many random re-deals of two rows at once, and shards from dear to cheap rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedgc.assignment.greedy import Rows
from fedgc.assignment.instance import Instance
from fedgc.assignment.tied import Tied, entries_of_pairs, forced, redealt, tied_of
from fedgc.short_rows import any_in_rows, row_sums, sorted_rows

Ints = NDArray[np.intp]
Floats = NDArray[np.float64]

#: Bounds the time of a search: about the clients, and for work lists a quarter of the copies, over all sweeps.
_BUDGET = 10_000_000
#: Bounds one sweep alike: small sweeps take hardly longer with many offers to each pair, which replace sweeps.
_SWEEP_WORK = 3500
_MOST_OFFERS = 50
#: Sweeps within the budget: as many as make so many offers to each pair, between these numbers.
_ENOUGH_OFFERS = 2500
_LEAST_SWEEPS = 240
_MOST_SWEEPS = 1000
#: Without heat, sweeps that change nothing before the search ends.
_PATIENCE = 20
_SHIFT_EVERY = 10
#: With more residency classes only shards that may live anywhere are shifted.
_MOST_SHIFTED = 32
#: Among more rows than this, the part of the sweeps after which shards with residency rules are redealt in all pairs.
_MANY_ROWS, _REDEALT = 2000, 0.2
#: Of the median cost of a row: how much worse an offer may be at first, and the part of the sweeps that have heat.
_WARMTH, _COOLING = 0.15, 0.8


def search_large(instance: Instance, starts: list[Rows], rng: np.random.Generator) -> Rows:
    """Shift shards in every start, take the best, and improve it by sweeps until nothing improves, within a budget.

    Notes
    -----
    A sweep pairs the rows at random and makes every pair some offers: two slots exchanged (a move where one is empty),
    or all slots dealt anew (which may merge two rows, split one, or bring in an idle client), with the shards kept,
    divided by speed, some of them shifted, or all put together. Of those that break no rule the one that lowers the
    pair's cost most is taken; pairs do not interact, so all of them are judged at once. Where the budget allows the
    sweeps that are wanted, the first ones also take slightly worse offers, as in simulated annealing. Every few of the
    others, shards go from the rows where one fewer saves the most to those where one more costs the least.
    """
    copies = instance.n_shards * instance.most if instance.schedule == "work-list" else 0
    work = instance.n_clients + copies // 4
    # Legality and choice of an offer cost about as much as three clients' part in its price.
    offers = int(np.clip(_SWEEP_WORK // (work + 3 * instance.n_clients), 1, _MOST_OFFERS))
    wanted = min(max(_ENOUGH_OFFERS // offers, _LEAST_SWEEPS), _MOST_SWEEPS)
    sweeps = min(wanted, max(_BUDGET // work, 16))

    def total(rows: Rows) -> float:
        return float(instance.cost(rows.members, rows.sizes, thorough=False).sum())

    # Shifting decides between starts, but it takes time, so only the two best by speed alone get there.
    rows = min((shift_shards(instance, rows, rounds=3) for rows in sorted(starts, key=total)[:2]), key=total)
    table = _Table(rows.members.copy(), rows.sizes.copy(), rows.tied)
    table.cost = instance.cost(table.members, table.sizes, thorough=False)
    warmth = float(np.median(table.cost[table.sizes > 0])) * (_WARMTH if sweeps == wanted else 0.0)
    unchanged = 0
    for sweep in range(sweeps):
        heat = warmth * max(0.0, 1.0 - sweep / (_COOLING * sweeps)) ** 2
        changed = _sweep(instance, table, offers, heat, rng)
        # A shift is a descent: among sweeps with heat it would only undo what they are for.
        if heat == 0.0 and sweep % _SHIFT_EVERY == _SHIFT_EVERY - 1:
            shifted = shift_shards(instance, table.rows(), rounds=1, coarse=False)
            changed |= bool((shifted.sizes != table.sizes).any())
            table.sizes, table.tied = shifted.sizes, shifted.tied
            table.cost = instance.cost(table.members, table.sizes, thorough=False)
        unchanged = 0 if changed or heat > 0.0 else unchanged + 1
        if unchanged == _PATIENCE:
            break
    return min(rows, shift_shards(instance, table.rows(), rounds=4, coarse=False), key=total)


class _Table:
    """Rows that a sweep changes in place, with their cost."""

    def __init__(self, members: Ints, sizes: Ints, tied: Tied) -> None:
        self.members, self.sizes, self.tied = members, sizes, tied
        self.cost: Floats = np.zeros(sizes.size)

    def rows(self) -> Rows:
        return Rows(self.members, self.sizes, self.tied)


def _sweep(instance: Instance, table: _Table, offers: int, heat: float, rng: np.random.Generator) -> bool:
    """Make some offers to every pair of rows, put the best in place where it is taken, and return whether any was."""
    all_pairs = _pairs(table, rng)
    pairs = all_pairs[any_in_rows(table.sizes.take(all_pairs) > 0)]
    if pairs.shape[0] == 0:
        return False
    # Two idle rows have nothing to gain; their offers go to the others.
    offers = min(offers * all_pairs.shape[0] // pairs.shape[0], 4 * offers)
    each = np.repeat(pairs, offers, axis=0)
    n_offers, n_slots = each.shape[0], table.members.shape[1]
    both = table.members.take(each, axis=0).reshape(n_offers, 2 * n_slots)
    members = sorted_rows(dealt(both, rng).reshape(n_offers, 2, n_slots))
    old_sizes = table.sizes.take(each)
    sizes = _divided(instance, members, old_sizes, rng)
    # What one row of a pair gains in shards the other loses.
    new = any_in_rows(members.reshape(both.shape) != both) | (sizes[:, 0] != old_sizes[:, 0])
    legal = _legal(instance, members.reshape(-1, n_slots), sizes.ravel())
    judged = np.flatnonzero(new & legal[0::2] & legal[1::2])
    if table.tied.row.size:
        entries = entries_of_pairs(table.tied, pairs, table.sizes.size)
        only, somewhere = forced(instance, entries, judged // offers, members[judged])
        judged = judged[somewhere & (only <= sizes[judged]).all(axis=1)]
    cost = np.full((n_offers, 2), np.inf)
    offered = members.take(judged, axis=0).reshape(-1, n_slots)
    cost[judged] = instance.cost(offered, sizes.take(judged, axis=0).ravel(), thorough=False).reshape(-1, 2)
    before = np.repeat(row_sums(table.cost.take(pairs)), offers)
    gain = before * (1.0 - 1e-9) - row_sums(cost)
    if heat > 0.0:
        gain += heat * rng.exponential(size=n_offers)
    best = np.argmax(gain.reshape(-1, offers), axis=1) + offers * np.arange(pairs.shape[0])
    taken = best[gain[best] > 0.0]
    rows = each[taken]
    table.members[rows], table.sizes[rows], table.cost[rows] = members[taken], sizes[taken], cost[taken]
    if table.tied.row.size:
        # What the other pairs hold may change too; among many rows that takes time and is not needed each time.
        if table.sizes.size > _MANY_ROWS and rng.random() > _REDEALT:
            pairs = pairs[taken // offers]
        table.tied = redealt(instance, table.tied, pairs, table.members, table.sizes, rng=rng)
    return bool(taken.size)


def _pairs(table: _Table, rng: np.random.Generator) -> Ints:
    """Return disjoint pairs of rows, (n_rows // 2, 2)."""
    n_rows = table.sizes.size
    way = rng.random()
    if way < 0.25:
        # Rows far apart in cost have the most to give each other.
        order = np.argsort(table.cost, kind="stable")
        return np.stack([order[: n_rows // 2], order[::-1][: n_rows // 2]], axis=1)
    order = rng.permutation(n_rows)
    if way < 0.5:
        # Among many idle rows the others would seldom meet.
        order = order[np.argsort(table.sizes[order] == 0, kind="stable")]
    return order[: n_rows // 2 * 2].reshape(-1, 2)


def dealt(both: Ints, rng: np.random.Generator) -> Ints:
    """Deal the slots of each pair: in a tenth as they are, in six tenths with two exchanged, else at random."""
    n_offers, n_slots = both.shape[0], both.shape[1] // 2
    way = rng.random(n_offers)
    new = both.copy()
    at = np.flatnonzero(way < 0.6)
    one, two = rng.integers(n_slots, size=at.size), n_slots + rng.integers(n_slots, size=at.size)
    one, two, cells = one + 2 * n_slots * at, two + 2 * n_slots * at, new.reshape(-1)
    cells[one], cells[two] = both.take(two), both.take(one)
    anew = np.flatnonzero(way > 0.7)
    new[anew] = rng.permuted(both.take(anew, axis=0), axis=1)
    return new


def _divided(instance: Instance, members: Ints, sizes: Ints, rng: np.random.Generator) -> Ints:
    """Divide the shards of each pair: as they are, by speed, with some shifted, or all to one (if they fit), (n, 2)."""
    n_offers = sizes.shape[0]
    total = row_sums(sizes)
    way = rng.random(n_offers)
    first = sizes[:, 0].copy()
    at = np.flatnonzero((way >= 0.3) & (way < 0.5))
    speed = row_sums(instance.speed.take(members.take(at, axis=0)))
    first[at] = np.rint(total[at] * speed[:, 0] / np.maximum(row_sums(speed), 1e-12)).astype(np.intp)
    at = np.flatnonzero((way >= 0.5) & (way < 0.9))
    # Where the cost is linear in the size, single steps would take too long.
    step = np.maximum(total[at] >> rng.integers(1, 9, size=at.size), 1)
    moved = first[at] + np.where(rng.random(at.size) < 0.5, step, -step)
    first[at] = np.minimum(np.maximum(moved, 0), total[at])
    at = np.flatnonzero(way >= 0.9)
    first[at] = np.where(rng.random(at.size) < 0.5, total[at], 0)
    divided = np.empty_like(sizes)
    divided[:, 0], divided[:, 1] = first, total - first
    return divided


def _legal(instance: Instance, members: Ints, sizes: Ints) -> NDArray[np.bool_]:
    """Return which rows break no limit; a row without shards is a set of idle clients and may be anything."""
    held = row_sums((members < instance.n_clients).astype(np.intp)) >= instance.least
    if instance.has_limits:
        held &= sizes <= instance.cap(members)
    if instance.constraints.domain is not None:
        held &= instance.domains_differ(members)
    return np.asarray(held | (sizes == 0))


def shift_shards(instance: Instance, rows: Rows, *, rounds: int, coarse: bool = True) -> Rows:
    """Move shards from the rows where fewer save the most to the rows where more cost the least."""
    members, sizes, tied = rows.members, rows.sizes.copy(), rows.tied
    able = _legal(instance, members, np.ones_like(sizes))
    cap = np.where(able, instance.cap(members), 0)
    cost = instance.cost(members, sizes, thorough=False)
    n_classes = len(instance.allowed)
    for step in [*(_coarse_steps(sizes) if coarse else []), *[1] * rounds]:
        # Beyond so many classes each has few shards, and the sweeps move them.
        for c in range(n_classes if n_classes <= _MOST_SHIFTED else 1):
            if c == 0:
                here, holding, room = np.arange(sizes.size), sizes - tied.per_row(sizes.size), cap
            else:
                of_class = tied.of_class == c
                here, holding = tied.row[of_class], tied.count[of_class]
                room = np.where(instance.may_hold(np.full(sizes.size, c), members), cap, 0)
            give, take = here[holding >= step], np.flatnonzero(sizes + step <= room)
            if give.size == 0 or take.size == 0:
                continue
            give, take = _trades(instance, members, sizes, cost=cost, give=give, take=take, step=step)
            if give.size == 0:
                continue
            sizes[give] -= step
            sizes[take] += step
            changed = np.concatenate([give, take])
            cost[changed] = instance.cost(members[changed], sizes[changed], thorough=False)
            if c:
                there = np.full(changed.size, c)
                by = np.repeat([-step, step], give.size)
                tied = tied_of(
                    np.concatenate([tied.row, changed]),
                    np.concatenate([tied.of_class, there]),
                    np.concatenate([tied.count, by]),
                    n_classes,
                )
    return Rows(members, sizes, tied)


def _trades(
    instance: Instance, members: Ints, sizes: Ints, *, cost: Floats, give: Ints, take: Ints, step: int
) -> tuple[Ints, Ints]:
    """Return rows that give and the rows that take from them, those with the most to gain first."""
    saving = cost[give] - instance.cost(members[give], sizes[give] - step, thorough=False)
    extra = instance.cost(members[take], sizes[take] + step, thorough=False) - cost[take]
    first, last = np.argsort(-saving, kind="stable"), np.argsort(extra, kind="stable")
    give, saving, take, extra = give[first], saving[first], take[last], extra[last]
    n_pairs = min(give.size, take.size)
    gain = saving[:n_pairs] - extra[:n_pairs]
    good = int(np.count_nonzero(gain > 1e-12 * np.abs(saving[:n_pairs])))
    # A row that both gives and takes would be in two trades; the later trade, with less to gain, is dropped.
    give, take = give[:good], take[:good]
    clash = np.isin(take, give) | np.isin(give, take)
    return give[~clash], take[~clash]


def _coarse_steps(sizes: Ints) -> list[int]:
    """Return numbers of shards to shift at once, halving from half of the largest row."""
    steps, step = [], int(sizes.max()) // 2
    while step > 1:
        steps.append(step)
        step //= 2
    return steps
