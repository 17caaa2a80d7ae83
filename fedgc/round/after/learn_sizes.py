"""Learn how many examples shards have from what their holders say, one of whom may be wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from fedgc.memory import UpdateMemory
from fedgc.memory.control_variates import combined
from fedgc.round.state import RoundState

#: So many holders' last words on a shard are kept: more would make a change of its size slow to be believed where
#: shards wander from client to client, and the state as large as the fleet times its shards.
_HOLDERS = 5


def agreed_size(said: Sequence[float], typical: float | None = None) -> float:
    """Return the number of examples of a shard of which its holders have said these: their median.

    Parameters
    ----------
    said : sequence of float
        What each has said, at least one number.
    typical : float, optional
        What shards have. Of the two numbers in the middle of an even count the one nearer to it in ratio is taken, or
        the lower one; but not 0, by which a holder says no more than that it has had nothing to learn from.

    Examples
    --------
    >>> agreed_size([100.0, 90_000.0, 100.0])
    100.0
    >>> agreed_size([90_000.0, 100.0], typical=120.0), agreed_size([1.0, 100.0], typical=120.0)
    (100.0, 100.0)
    >>> agreed_size([0.0, 5000.0]), agreed_size([0.0])
    (5000.0, 0.0)
    """
    ordered = sorted(said)
    low, high = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    if low == high or typical is None or low == 0.0:
        return high if low == 0.0 else low
    return low if low * high >= typical * typical else high


def learn_sizes(
    state: RoundState,
    said: Iterable[tuple[int, NDArray[np.intp], NDArray[np.float64]]],
    typical: Callable[[], float | None] = lambda: None,
) -> RoundState:
    """Return a state that knows what holders have said of their shards.

    Parameters
    ----------
    state : RoundState
        The state. Its sizes are those that the memory's updates have been weighted with.
    said : iterable of (int, ndarray, ndarray)
        Node ids with shards and numbers of examples, both (n_done,); the newest last.
    typical : callable
        Tells what shards have, see :func:`agreed_size`; called if any holders differ.

    Notes
    -----
    Each holder counts with what it said last, so that whatever is believed can be unlearnt again: a shard of which a
    single holder has told has the size that it says, and one more holder is enough for that to be weighed against what
    shards have elsewhere. What is remembered of a shard is weighted by its size, and goes along when that changes.

    Examples
    --------
    >>> state = learn_sizes(RoundState(np.array([np.nan, 50.0])), [(7, np.array([0]), np.array([9.0]))])
    >>> state.shard_examples, state.claims
    (array([ 9., 50.]), {0: {7: 9.0}})
    """
    claims: dict[int, Mapping[int, float]] = dict(state.claims)
    heard: dict[int, dict[int, float]] = {}
    for node, shards, counts in said:
        for shard, count in zip(shards.tolist(), counts.tolist(), strict=True):
            of_shard = heard.get(shard)
            if of_shard is None:
                of_shard = heard[shard] = dict(claims.get(shard, {}))
            of_shard.pop(node, None)
            of_shard[node] = count
    sizes, usual = state.shard_examples.copy(), cache(typical)
    for shard, of_shard in heard.items():
        claims[shard] = last = dict(list(of_shard.items())[-_HOLDERS:])
        latest = [*last.values()]
        sizes[shard] = latest[0] if len({*latest}) == 1 else agreed_size(latest, usual())
    memory = None if state.memory is None else _weighted_anew(state.memory, state.shard_examples, sizes)
    return replace(state, shard_examples=sizes, claims=claims, memory=memory)


def _weighted_anew(memory: UpdateMemory, old: NDArray[np.float64], new: NDArray[np.float64]) -> UpdateMemory:
    """Return the memory of sums with sizes, once these are others."""
    unit = memory.unit_of_shard
    before, after = np.bincount(unit, old), np.bincount(unit, new)
    factors = {
        one: after[one] / before[one] for one in memory.updates if before[one] > 0.0 and before[one] != after[one]
    }
    if not factors:
        return memory
    updates = {
        one: combined(memory.store, [factors[one]], [update]) if np.isfinite(factors.get(one, np.nan)) else update
        for one, update in memory.updates.items()
    }
    return replace(memory, updates=updates)
