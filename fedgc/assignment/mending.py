"""Make rows feasible that hold too much, or shards that they may not hold, by random re-deals of two rows at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedgc.assignment.greedy import Rows
from fedgc.assignment.instance import Instance
from fedgc.assignment.local_search import dealt
from fedgc.assignment.tied import PairEntries, entries_of_pairs, redealt

Ints = NDArray[np.intp]
Floats = NDArray[np.float64]

#: Offers to all pairs of a sweep, and over all sweeps; beyond so many sweeps the search gives up.
_OFFERS, _MOST_OFFERS, _BUDGET, _MOST_SWEEPS = 1500, 100, 6_000_000, 6000
#: How many copies worse an offer may be: the scale of an exponential variable, from the first sweep of a round on.
_HEAT, _ROUND = 0.3, 600
#: Part of the sweeps that bring rows together with clients that may hold their shards.
_DIRECTED = 0.7


def mended(instance: Instance, starts: list[Rows], rng: np.random.Generator, *, part: float = 1.0) -> Rows | None:
    """Return feasible rows, or None if it finds none, from the starts with the fewest copies where they may not be.

    Parameters
    ----------
    instance : Instance
        The instance.
    starts : list of Rows
        Rows that hold all shards, though they break limits or rules.
    rng : numpy.random.Generator
        Source of random choices.
    part : float
        Part of the usual effort.

    Notes
    -----
    What is wrong with a row is counted in shard copies: those beyond a member's limit, those at members that may not
    hold them, and for every member too few, or in the same domain as another, all shards of the row. A sweep pairs the
    rows at random, makes each pair many offers of other members and sizes, deals the shards of each offer such that the
    fewest copies are wrong, and takes the best; offers that are a little worse are taken too, less and less so.
    """
    sweeps = int(max(min(_MOST_SWEEPS, _BUDGET // max(_OFFERS, starts[0].sizes.size)) * part, 1))
    ranked = sorted(starts, key=lambda rows: int(_wrong(instance, rows).sum()))
    for sweep in range(sweeps):
        if sweep % _ROUND == 0:
            start = ranked[sweep // _ROUND % len(ranked)]
            rows = Rows(start.members.copy(), start.sizes.copy(), start.tied)
            wrong = _wrong(instance, rows)
        if not wrong.any():
            return rows
        rows, wrong = _sweep(instance, rows, wrong, _HEAT * (1.0 - (sweep % _ROUND) / _ROUND) ** 2, rng)
    return rows if not wrong.any() else None


def _wrong(instance: Instance, rows: Rows) -> Ints:
    """Return how many copies are where they may not be, (n_rows,)."""
    tied = rows.tied
    forbidden = tied.count * instance.copies_forbidden(tied.of_class, rows.members[tied.row])
    return beyond_limits(instance, rows.members, rows.sizes) + np.bincount(tied.row, forbidden, rows.sizes.size).astype(
        np.intp
    )


def beyond_limits(instance: Instance, members: Ints, sizes: Ints) -> Ints:
    """Return how many copies break a limit of the clients, whatever shards they are of, (n_rows,)."""
    present = members < instance.n_clients
    wrong = np.maximum(sizes[:, None] - instance.limit[members], 0).sum(axis=1, where=present)
    if instance.schedule == "work-list":
        wrong = wrong + np.maximum(sizes - instance.list_limit[members].sum(axis=1), 0)
    bad = np.maximum(instance.least - present.sum(axis=1), 0)
    if instance.constraints.domain is not None:
        labels = np.sort(instance.domain[members], axis=1)
        bad = bad + ((labels[:, 1:] == labels[:, :-1]) & (labels[:, 1:] >= 0)).sum(axis=1)
    return np.asarray(wrong + bad * sizes, dtype=np.intp)


def _sweep(instance: Instance, rows: Rows, wrong: Ints, heat: float, rng: np.random.Generator) -> tuple[Rows, Ints]:
    n_rows, n_slots = rows.members.shape
    pairs = _directed(instance, rows, rng)
    if pairs.shape[0] == 0 or rng.random() > _DIRECTED:
        pairs = _random_pairs(wrong, rng)
    pairs = pairs[(rows.sizes[pairs] > 0).any(axis=1)]
    if pairs.shape[0] == 0:
        return rows, wrong
    offers = int(np.clip(_OFFERS // pairs.shape[0], 1, _MOST_OFFERS))
    pair = np.repeat(np.arange(pairs.shape[0]), offers)
    both = rows.members[pairs[pair]].reshape(pair.size, 2 * n_slots)
    members = np.sort(dealt(both, rng).reshape(pair.size, 2, n_slots), axis=2)
    sizes = _sizes(instance, members, rows.sizes[pairs[pair]], rng)
    entries = entries_of_pairs(rows.tied, pairs, n_rows)
    limits = beyond_limits(instance, members.reshape(-1, n_slots), sizes.ravel()).reshape(-1, 2)
    bad = limits.sum(axis=1) + _forbidden(instance, entries, pair, members, sizes)
    gain = wrong[pairs].sum(axis=1)[pair] - bad + rng.exponential(heat, pair.size) + 1e-6 * rng.random(pair.size)
    best = np.argmax(gain.reshape(-1, offers), axis=1) + offers * np.arange(pairs.shape[0])
    taken = best[gain[best] >= 0.0]
    new_members, new_sizes = rows.members, rows.sizes
    new_members[pairs[pair[taken]]], new_sizes[pairs[pair[taken]]] = members[taken], sizes[taken]
    tied = redealt(instance, rows.tied, pairs, new_members, new_sizes, rng=rng)
    changed = Rows(new_members, new_sizes, tied)
    return changed, _wrong(instance, changed)


def _random_pairs(wrong: Ints, rng: np.random.Generator) -> Ints:
    """Return disjoint pairs, (n_pairs, 2): rows with something wrong, each with any other row."""
    order = rng.permutation(wrong.size)
    order = order[np.argsort(wrong[order] == 0, kind="stable")]
    half = min(max(int(np.count_nonzero(wrong)), 4), wrong.size // 2)
    return np.stack([order[:half], rng.permutation(order[half:])[:half]], axis=1)


def _directed(instance: Instance, rows: Rows, rng: np.random.Generator) -> Ints:
    """Return disjoint pairs, (n_pairs, 2): rows with shards that they may not hold, and rows of clients that may."""
    tied = rows.tied
    forbidden = instance.copies_forbidden(tied.of_class, rows.members[tied.row])
    entries = np.flatnonzero(forbidden > 0)
    clients = instance.any_allowed(tied.of_class[entries], rng)
    row_of_client = np.full(instance.n_clients + 1, -1, dtype=np.intp)
    row_of_client[rows.members] = np.arange(rows.sizes.size)[:, None]
    row_of_client[-1] = -1
    pairs = np.stack([tied.row[entries], row_of_client[clients]], axis=1)
    pairs = rng.permutation(pairs[(pairs[:, 0] != pairs[:, 1]) & (pairs[:, 1] >= 0)])
    # The first to name a row has it.
    first = np.unique(pairs, return_index=True)
    first_of = np.full(rows.sizes.size, -1, dtype=np.intp)
    first_of[first[0]] = first[1] // 2
    number = np.arange(pairs.shape[0])
    return np.asarray(pairs[(first_of[pairs] == number[:, None]).all(axis=1)])


def _sizes(instance: Instance, members: Ints, sizes: Ints, rng: np.random.Generator) -> Ints:
    """Divide the shards of each pair: as they are, some shifted, or one row as full as its members let it, (n, 2)."""
    total = sizes.sum(axis=1)
    way = rng.random(total.size)
    cap = np.stack([instance.cap(members[:, side]) for side in (0, 1)], axis=1)
    first = np.where(way < 0.4, sizes[:, 0], np.minimum(total, cap[:, 0]))
    first = np.where(way > 0.6, total - np.minimum(total, cap[:, 1]), first)
    step = np.maximum(total >> rng.integers(1, 9, size=total.size), 1) * rng.choice([-1, 1], total.size)
    first = np.where(way > 0.8, np.clip(sizes[:, 0] + step, 0, total), first)
    return np.stack([first, total - first], axis=1)


def _forbidden(instance: Instance, entries: PairEntries, pair: Ints, members: Ints, sizes: Ints) -> Ints:
    """Return the fewest copies that are where they may not be, over all ways to deal the shards, (n_offers,)."""
    entry, offer = entries.of_offers(pair)
    n_offers, most = pair.size, members.shape[2]
    first, second = (instance.copies_forbidden(entries.of_class[entry], members[offer, side]) for side in (0, 1))
    count = entries.count[entry]
    # Those for which the first row is the better place go there first; free shards do not care.
    width = 2 * most + 1
    units = np.bincount(offer * width + first - second + most, count, n_offers * width).reshape(n_offers, width)
    units[:, most] += sizes.sum(axis=1) - units.sum(axis=1)
    before = np.cumsum(units, axis=1) - units
    there = np.clip(sizes[:, :1] - before, 0, units)
    extra = there @ np.arange(-most, most + 1)
    return np.asarray(np.bincount(offer, count * second, n_offers) + extra, dtype=np.intp)
