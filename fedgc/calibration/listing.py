"""List what may arrive of a block, with its probability, or draw it where there is too much to list."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
#: The outcomes of a part and their probabilities.
Outcomes = tuple[NDArray[np.bool_], Array]

#: Combinations of outcomes that are merged at once, per state that is allowed in the end.
_MERGED_AT_ONCE = 8

#: Sets of so many super-shards fit into an integer.
_BITS = 62


def list_states(
    parts: list[Outcomes], limits: tuple[int, int], rng: np.random.Generator
) -> tuple[NDArray[np.bool_], Array, bool]:
    """Return the possible combinations of the parts' outcomes, or random ones if there are too many."""
    total = 1
    for _, probability in parts:
        total *= probability.size
    most_states, draws = limits
    if total > most_states:
        return (*_drawn(parts, draws, rng), True)
    number = np.arange(total)
    columns, weight = [], np.ones(total)
    for outcomes, probability in parts:
        number, pick = np.divmod(number, probability.size)
        columns.append(outcomes[pick])
        weight *= probability[pick]
    return np.concatenate(columns, axis=1), weight, False


def _drawn(parts: list[Outcomes], draws: int, rng: np.random.Generator) -> tuple[NDArray[np.bool_], Array]:
    picks = [rng.choice(p.size, size=draws, p=p / p.sum()) for _, p in parts]
    states = np.concatenate([outcomes[pick] for (outcomes, _), pick in zip(parts, picks, strict=True)], axis=1)
    return states, np.full(draws, 1.0 / draws)


class Unions(NamedTuple):
    """The sets of super-shards that may arrive, merged part by part.

    Attributes
    ----------
    states : ndarray of bool, shape (n_states, m)
        The sets.
    places : list of ndarray of int, each of shape (n_before x n_outcomes,)
        For each part, which of the sets with it each set without it and each outcome of the part make together.
    sizes : list of int
        Numbers of sets with each part.
    most_states : int
        The limit that they keep to.
    """

    states: NDArray[np.bool_]
    places: list[NDArray[np.intp]]
    sizes: list[int]
    most_states: int


def merge_sets(sets: list[NDArray[np.bool_]], most_states: int) -> Unions | None:
    """Return the sets of super-shards that may arrive, of those that each part's outcomes bring; None if too many.

    Many combinations of outcomes make the same set: they are merged part by part, so that the sets stay few where the
    combinations would be millions.
    """
    m = sets[0].shape[1]
    states, places, sizes = np.zeros((1, m), dtype=np.bool_), [], []
    for own in sets:
        if states.shape[0] * own.shape[0] > _MERGED_AT_ONCE * most_states:
            return None
        union = (states[:, None, :] | own[None, :, :]).reshape(-1, m)
        first, place = _distinct(union)
        states = union[first]
        places.append(place)
        sizes.append(first.size)
    return Unions(states, places, sizes, most_states) if states.shape[0] <= most_states else None


def list_single_states(
    parts: list[Outcomes], reach: NDArray[np.bool_], unions: Unions | None, draws: int, rng: np.random.Generator
) -> tuple[NDArray[np.bool_], Array, bool]:
    """Return the sets of super-shards that may arrive, or random ones if they are too many to list.

    `reach` tells which super-shard each row is.
    """
    if unions is None:
        drawn, share = _drawn(parts, draws, rng)
        union = drawn @ reach
        first, place = _distinct(union)
        return union[first], np.bincount(place, share, first.size).astype(np.float64), True
    weight = np.ones(1)
    for (_, probability), place, size in zip(parts, unions.places, unions.sizes, strict=True):
        weight = np.bincount(place, np.outer(weight, probability).ravel(), size).astype(np.float64)
    return unions.states, weight, False


def _distinct(states: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return where each different state comes first, and which of them each state is."""
    m = states.shape[1]
    if m <= _BITS:  # an integer sorts many times faster than a string of bytes
        key = states @ (np.int64(1) << np.arange(m, dtype=np.int64))
    else:
        packed = np.ascontiguousarray(np.packbits(states, axis=1))
        key = packed.view(np.dtype((np.void, packed.shape[1]))).ravel()
    _, first, place = np.unique(key, return_index=True, return_inverse=True)
    return first, place.ravel()


def marginal_probabilities(parts: list[Outcomes], sets: list[NDArray[np.bool_]]) -> tuple[Array, Array]:
    """Return the probabilities that each super-shard arrives in some part, and in none, both to full precision.

    `sets` are the super-shards that each outcome of each part brings, each of shape (n_outcomes, m).
    """
    arrives, misses = marginal_probabilities_of_many([probability[None] for _, probability in parts], sets)
    return arrives[0], misses[0]


def marginal_probabilities_of_many(probabilities: list[Array], sets: list[NDArray[np.bool_]]) -> tuple[Array, Array]:
    """Return the same for n components whose parts bring the same sets, each of shape (n, m).

    `probabilities` are those of the outcomes of each part, each of shape (n, n_outcomes).
    """
    log_missed = np.zeros((probabilities[0].shape[0], sets[0].shape[1]))
    for probability, there in zip(probabilities, sets, strict=True):
        # Row by row, not as one product of matrices, which would add up in another order.
        comes, stays = (probability[:, None] @ there)[:, 0], (probability[:, None] @ ~there)[:, 0]
        with np.errstate(divide="ignore"):  # log 0 of a part that always brings a super-shard
            log_missed += np.where(comes < 0.5, np.log1p(-np.minimum(comes, 0.5)), np.log(stays))
    return np.asarray(-np.expm1(log_missed)), np.exp(log_missed)
