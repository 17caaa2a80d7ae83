"""What of a component depends on which outcomes may come, and not on how likely they are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedgc.calibration.listing import Unions, merge_sets
from fedgc.calibration.projection import RowSpace, row_space

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.intp]

#: Patterns of at most so many coefficients are kept, and so many of them: those of a search for a deadline.
_MOST_COEFFICIENTS, _MOST_KEPT = 2048, 512
#: Sets of super-shards are kept with them if so many combinations make them.
_MOST_COMBINATIONS = 4096


class Unknowns(NamedTuple):
    """Rank, basis and tests as in :class:`fedgc.calibration.block_states.Block`, and who cannot be recovered."""

    rank: int
    basis: Array
    tests: Array
    lost: Bools  # (n_own_shards,)


@dataclass(frozen=True, eq=False)
class Pattern:
    """Super-shards of a component.

    Attributes
    ----------
    merged : ndarray, shape (k, m)
        The rows over the m super-shards, zero where they cannot arrive.
    super_shard : ndarray of int, shape (n_own_shards,)
        The super-shard of each shard.
    groups : ndarray of int, shape (n_own_shards,), or None
        Labels of the shards that change places with each other.
    single : bool
        Whether every row that may arrive is one super-shard, once.
    sets : list of ndarray of bool, each of shape (n_outcomes, m)
        If `single`, the super-shards that arrive in each outcome of each part.
    """

    merged: Array
    super_shard: Ints
    groups: Ints | None
    single: bool
    sets: list[Bools]

    @cached_property
    def reach(self) -> Bools:
        """Which super-shards are in each row, (k, m)."""
        return np.asarray(self.merged != 0.0)

    def unknowns(self, energy: Array) -> Unknowns:
        """Return the unknowns for super-shards of these energies."""
        if self.single and (energy > 0.0).all():
            return self._single_unknowns
        return unknowns(row_space(self.merged, energy), self.merged, self.super_shard, self.groups)

    @cached_property
    def _single_unknowns(self) -> Unknowns:
        # Rows that are one super-shard each are their own reduced basis, whatever the energies.
        pivot = np.asarray(self.reach.any(axis=0))
        return unknowns(RowSpace(pivot, np.diag(pivot.astype(np.float64))), self.merged, self.super_shard, self.groups)

    def unions(self, most_states: int) -> Unions | None:
        """Return the sets of super-shards that may arrive, see :func:`merge_sets`; None if they are too many."""
        kept: Unions | None = self.__dict__.get("_unions")
        if kept is not None and kept.most_states == most_states:
            return kept
        found = merge_sets(self.sets, most_states)
        if found is not None and sum(place.size for place in found.places) <= _MOST_COMBINATIONS:
            self.__dict__.update(_unions=found)
        return found


def pattern_of(coefficients: Array, outcomes: list[Bools], groups: Ints | None) -> Pattern:
    """Return the pattern of a component with these rows, outcomes of its parts, and labels of its shards."""
    if coefficients.size > _MOST_COEFFICIENTS:
        return _pattern(coefficients, outcomes, groups)
    shapes = coefficients.shape, tuple(one.shape for one in outcomes)
    labels = None if groups is None else groups.astype(np.intp).tobytes()
    return _kept_pattern(
        coefficients.astype(np.float64).tobytes(), tuple(one.tobytes() for one in outcomes), labels, shapes
    )


@lru_cache(maxsize=_MOST_KEPT)
def _kept_pattern(
    coefficients: bytes,
    outcomes: tuple[bytes, ...],
    groups: bytes | None,
    shapes: tuple[tuple[int, int], tuple[tuple[int, int], ...]],
) -> Pattern:
    return _pattern(
        np.frombuffer(coefficients).reshape(shapes[0]),
        [np.frombuffer(one, dtype=np.bool_).reshape(shape) for one, shape in zip(outcomes, shapes[1], strict=True)],
        None if groups is None else np.frombuffer(groups, dtype=np.intp),
    )


def _pattern(coefficients: Array, outcomes: list[Bools], groups: Ints | None) -> Pattern:
    possible = np.concatenate([one.any(axis=0) for one in outcomes])
    merged, super_shard = super_shards(coefficients, possible, groups)
    rows = merged[possible]
    single = bool(((rows != 0.0).sum(axis=1) == 1).all() and (rows.max(axis=1) == 1.0).all())
    sets: list[Bools] = []
    if single:
        ends = np.cumsum([one.shape[1] for one in outcomes])
        of_parts = np.split(merged != 0.0, ends[:-1])
        sets = [one @ rows for one, rows in zip(outcomes, of_parts, strict=True)]
    return Pattern(merged, super_shard, groups, single, sets)


def super_shards(coefficients: Array, possible: Bools, groups: Ints | None) -> tuple[Array, Ints]:
    """Return the rows over super-shards, zero where they cannot arrive, and the super-shard of each shard.

    Shards of different groups are kept apart.
    """
    columns = coefficients * possible[:, None]
    if groups is None:
        return _distinct_columns(columns)
    merged, super_shard = _distinct_columns(np.vstack([columns, groups]))
    return merged[:-1], super_shard


def _distinct_columns(table: Array) -> tuple[Array, Ints]:
    """Return what ``np.unique`` does of columns, with their inverse, in a fraction of its time for small tables."""
    order = np.lexsort(table[::-1])
    ordered = table[:, order]
    new = np.append(True, (ordered[:, 1:] != ordered[:, :-1]).any(axis=0))
    place = np.empty(order.size, dtype=np.intp)
    place[order] = np.cumsum(new) - 1
    return ordered[:, new], place


def unknowns(space: RowSpace, merged: Array, super_shard: Ints, groups: Ints | None) -> Unknowns:
    """Return the unknowns of rows over super-shards that span this space."""
    pivot, reduced = space
    if groups is None:
        # A vector in the row space is settled by its pivots; all ones must be one of them.
        lost = ~pivot & (np.abs(reduced.sum(axis=0) - 1.0) > 1e-9)
        return Unknowns(int(pivot.sum()), reduced[pivot], np.eye(pivot.size)[pivot], lost[super_shard])
    names, number = np.unique(groups, return_inverse=True)
    tests = np.zeros((names.size, pivot.size))
    np.add.at(tests, (number, super_shard), 1.0)
    basis = (tests > 0.0).astype(np.float64)
    tests /= tests.sum(axis=1, keepdims=True)
    never = basis @ (merged != 0.0).any(axis=0) == 0.0
    return Unknowns(int(pivot.sum()), basis, tests, never[number])
