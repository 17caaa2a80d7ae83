"""Shards with residency rules, by the row that holds them; re-deals of two rows keep every rule."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from fedgc.assignment.dealing import Counts
from fedgc.assignment.instance import Instance

Ints = NDArray[np.intp]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Tied:
    """How many shards of each residency class but class 0 every row holds; what else it holds may live anywhere.

    Attributes
    ----------
    row, of_class, count : ndarray of int, shape (n_entries,)
        Row, residency class and number of shards, at least 1; ordered by row and class, each pair once.
    """

    row: Ints
    of_class: Ints
    count: Ints

    def per_row(self, n_rows: int) -> Ints:
        """Return the number of tied shards in each row, (n_rows,)."""
        return np.bincount(self.row, self.count, n_rows).astype(np.intp)


def tied_of(row: Ints, of_class: Ints, count: Ints, n_classes: int) -> Tied:
    """Return entries in order, those of the same row and class summed up, without class 0 and empty ones."""
    kept = (count != 0) & (of_class > 0)
    key, where = np.unique(row[kept] * n_classes + of_class[kept], return_inverse=True)
    total = np.bincount(where, count[kept], key.size).astype(np.intp)
    key, total = key[total > 0], total[total > 0]
    return Tied(key // n_classes, key % n_classes, total)


def counts_of(instance: Instance, sizes: Ints, tied: Tied) -> Counts:
    """Return what :func:`fedgc.assignment.dealing.deal_shards` takes."""
    rows = np.concatenate([np.arange(sizes.size), tied.row])
    classes = np.concatenate([np.zeros(sizes.size, dtype=np.intp), tied.of_class])
    data = np.concatenate([sizes - tied.per_row(sizes.size), tied.count])
    return sparse.coo_array((data, (rows, classes)), shape=(sizes.size, len(instance.allowed)))


@dataclass(frozen=True, eq=False)
class PairEntries:
    """The tied shards of pairs of rows: entries from begin[p] to begin[p + 1] are those of pair p."""

    of_class: Ints
    count: Ints
    begin: Ints
    others: Bools

    def of_offers(self, pair: Ints) -> tuple[Ints, Ints]:
        """Return entries and the offer that each is about, for offers to the given pairs."""
        number = self.begin[pair + 1] - self.begin[pair]
        offer = np.repeat(np.arange(pair.size), number)
        within = np.arange(offer.size) - np.repeat(np.cumsum(number) - number, number)
        return self.begin[pair][offer] + within, offer


def entries_of_pairs(tied: Tied, pairs: Ints, n_rows: int) -> PairEntries:
    """Return the entries by pair; `others` are those of rows that are in no pair."""
    of_row = np.full(n_rows, -1, dtype=np.intp)
    of_row[pairs] = np.arange(pairs.shape[0])[:, None]
    pair = of_row[tied.row]
    order = np.argsort(pair, kind="stable")
    begin = np.searchsorted(pair[order], np.arange(pairs.shape[0] + 1))
    return PairEntries(tied.of_class[order], tied.count[order], begin, pair < 0)


def forced(instance: Instance, entries: PairEntries, pair: Ints, members: Ints) -> tuple[Ints, Bools]:
    """Return how many shards only the first and only the second row may hold, and whether one of them may hold each.

    Parameters
    ----------
    instance : Instance
        The instance.
    entries : PairEntries
        Tied shards.
    pair : ndarray of int, shape (n_offers,)
        Pair that each offer is about.
    members : ndarray of int, shape (n_offers, 2, n_slots)
        Members that are offered.

    Returns
    -------
    only : ndarray of int, shape (n_offers, 2)
    somewhere : ndarray of bool, shape (n_offers,)
        Together with room for what is forced, ``only <= sizes``, this is all that the rules ask of two rows.
    """
    entry, offer = entries.of_offers(pair)
    able = [instance.may_hold(entries.of_class[entry], members[offer, side]) for side in (0, 1)]
    count = entries.count[entry]
    only = [np.bincount(offer, count * (able[side] & ~able[1 - side]), pair.size) for side in (0, 1)]
    nowhere = np.bincount(offer, count * ~(able[0] | able[1]), pair.size)
    return np.stack(only, axis=1).astype(np.intp), np.asarray(nowhere == 0)


def redealt(
    instance: Instance, tied: Tied, pairs: Ints, members: Ints, sizes: Ints, *, rng: np.random.Generator
) -> Tied:
    """Deal the tied shards of each pair of rows anew, such that the fewest copies are where they may not be.

    What could be in either row is dealt at random: what two rows hold decides what they can be offered next, so it is
    worth changing also where members and sizes stay.
    """
    entries = entries_of_pairs(tied, pairs, sizes.size)
    begin = entries.begin - entries.begin[0]
    pair = np.repeat(np.arange(pairs.shape[0]), np.diff(begin))
    inside = slice(int(entries.begin[0]), int(entries.begin[-1]))
    of_class, count = entries.of_class[inside], entries.count[inside]
    free = sizes[pairs].sum(axis=1) - np.bincount(pair, count, pairs.shape[0]).astype(np.intp)
    pair = np.concatenate([pair, np.arange(pairs.shape[0])])
    of_class, count = np.append(of_class, np.zeros_like(free)), np.append(count, free)
    better = [instance.copies_forbidden(of_class, members[pairs[pair, side]]) for side in (0, 1)]
    order = np.lexsort((rng.random(pair.size), better[0] - better[1], pair))
    pair, of_class, count = pair[order], of_class[order], count[order]
    before = np.cumsum(count) - count
    before -= before[np.searchsorted(pair, pair)]
    part = np.clip(sizes[pairs[pair, 0]] - before, 0, count)
    return tied_of(
        np.concatenate([tied.row[entries.others], pairs[pair, 0], pairs[pair, 1]]),
        np.concatenate([tied.of_class[entries.others], of_class, of_class]),
        np.concatenate([tied.count[entries.others], part, count - part]),
        len(instance.allowed),
    )
