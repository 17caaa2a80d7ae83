"""List what may arrive of a block, with its probability, or draw it where there is too much to list."""

from __future__ import annotations

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


def list_single_states(
    parts: list[Outcomes], reach: list[NDArray[np.bool_]], limits: tuple[int, int], rng: np.random.Generator
) -> tuple[NDArray[np.bool_], Array, bool]:
    """Return the sets of super-shards that may arrive; `reach` tells which super-shard each of a part's rows is.

    Many combinations of outcomes make the same set: they are merged part by part, so that the sets stay few where the
    combinations would be millions.
    """
    most_states, draws = limits
    m = reach[0].shape[1]
    states, weight = np.zeros((1, m), dtype=np.bool_), np.ones(1)
    for (outcomes, probability), rows in zip(parts, reach, strict=True):
        sets = outcomes @ rows
        if states.shape[0] * sets.shape[0] > _MERGED_AT_ONCE * most_states:
            break
        union = (states[:, None, :] | sets[None, :, :]).reshape(-1, m)
        states, weight = _merged(union, np.outer(weight, probability).ravel())
    else:
        if states.shape[0] <= most_states:
            return states, weight, False
    drawn, share = _drawn(parts, draws, rng)
    return (*_merged(drawn @ np.concatenate(reach), share), True)


def _merged(states: NDArray[np.bool_], weight: Array) -> tuple[NDArray[np.bool_], Array]:
    m = states.shape[1]
    if m <= _BITS:  # an integer sorts many times faster than a string of bytes
        key = states @ (np.int64(1) << np.arange(m, dtype=np.int64))
    else:
        packed = np.ascontiguousarray(np.packbits(states, axis=1))
        key = packed.view(np.dtype((np.void, packed.shape[1]))).ravel()
    _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
    return states[first], np.bincount(inverse.ravel(), weight, first.size).astype(np.float64)


def marginal_probabilities(parts: list[Outcomes], reach: list[NDArray[np.bool_]]) -> tuple[Array, Array]:
    """Return the probabilities that each super-shard arrives in some part, and in none, both to full precision."""
    log_missed = np.zeros(reach[0].shape[1])
    for (outcomes, probability), rows in zip(parts, reach, strict=True):
        there = outcomes @ rows
        comes, stays = probability @ there, probability @ ~there
        with np.errstate(divide="ignore"):  # log 0 of a part that always brings a super-shard
            log_missed += np.where(comes < 0.5, np.log1p(-np.minimum(comes, 0.5)), np.log(stays))
    return np.asarray(-np.expm1(log_missed)), np.exp(log_missed)
