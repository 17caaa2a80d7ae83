"""Local search for small instances: the best re-deal of any two blocks and the idle clients."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedgc.assignment.columns import Columns

#: What a shard without a block costs; more than a shard that never arrives.
_UNPLACED = 1e13
_RUINS, _PATIENCE = 400, 200
#: How often all blocks are dissolved: some optima share no block with what a descent first comes to.
_ANEW = 0.5
_CHUNK = 512


@dataclass(frozen=True)
class State:
    """Disjoint sets of members, how many shards each holds, and how many shards have no block yet."""

    sets: tuple[int, ...]
    sizes: tuple[int, ...]
    unplaced: int
    cost: float


#: Best re-deals by what is kept, with its sizes, and by the shards without a block.
Known = dict[tuple[tuple[tuple[int, int], ...], int], State | None]


def state_of(columns: Columns, sets: Sequence[int], sizes: Sequence[int]) -> State:
    """Return the state with these sets, leaving out empty ones."""
    pairs = sorted((s, size) for s, size in zip(sets, sizes, strict=True) if size > 0)
    unplaced = columns.instance.n_shards - sum(size for _, size in pairs)
    cost = _UNPLACED * unplaced + sum(float(columns.cost[s, size]) for s, size in pairs)
    return State(tuple(s for s, _ in pairs), tuple(size for _, size in pairs), unplaced, cost)


def search_small(columns: Columns, start: State, rng: np.random.Generator) -> State:
    """Improve `start` by re-deals of two blocks; restart from ruins of the best state, or from next to nothing.

    Notes
    -----
    A re-deal takes two blocks (or one, or none), the idle clients and the shards that have no block, and forms the best
    two blocks (or one) of them: it covers swaps, moves, shifts of shards, splits and merges at once. Whether shards
    with residency rules fit is Hall's condition over sets of residency classes, since only the sizes of blocks matter:
    the blocks that may hold any class of the set must have room for all of its shards.
    """
    known: Known = {}
    best = _descend(columns, start, known)
    in_vain = 0
    for _ in range(_RUINS):
        trial = _descend(columns, _ruined(columns, best, rng), known)
        in_vain = 0 if trial.cost < best.cost * (1.0 - 1e-12) else in_vain + 1
        best = min(best, trial, key=lambda state: state.cost)
        if in_vain == _PATIENCE:
            break
    return best


def _ruined(columns: Columns, state: State, rng: np.random.Generator) -> State:
    """Dissolve up to three blocks, at times all, and form random ones, which the search may then change again."""
    anew = rng.random() < _ANEW
    n_gone = len(state.sets) if anew else min(int(rng.integers(1, 4)), len(state.sets))
    kept = sorted(rng.permutation(len(state.sets))[n_gone:].tolist())
    sets, sizes = [state.sets[index] for index in kept], [state.sizes[index] for index in kept]
    for _ in range(int(rng.integers(1, 5)) if anew else 1):
        taken = int(np.bitwise_or.reduce(columns.bits[sets])) if sets else 0
        usable = np.flatnonzero(((columns.bits & taken) == 0) & (columns.cap > 0))
        unplaced = columns.instance.n_shards - sum(sizes)
        if usable.size == 0 or unplaced == 0:
            break
        new = int(rng.choice(usable))
        most = min(int(columns.cap[new]), unplaced)
        size = int(rng.integers(1, (min(most, 3) if anew else most) + 1))
        # A random block may take the room of shards that can live nowhere else.
        room = sum((columns.reaches[s] * size_ for s, size_ in zip(sets, sizes, strict=True)), start=np.intp(0))
        if (room + columns.reaches[new] * size + unplaced - size >= columns.need).all():
            sets.append(new)
            sizes.append(size)
    return state_of(columns, sets, sizes)


def _descend(columns: Columns, state: State, known: Known) -> State:
    """Re-deal pairs until none improves."""
    while True:
        blocks = list(zip(state.sets, state.sizes, strict=True))
        # Fewest blocks first, so that a dissolved state is first filled up from the idle clients.
        for count in range(min(2, len(blocks)) + 1):
            for pair in itertools.combinations(range(len(blocks)), count):
                others = tuple(block for index, block in enumerate(blocks) if index not in pair)
                key = (others, state.unplaced)
                if key not in known:
                    known[key] = _redeal(columns, others, state.unplaced)
                better = known[key]
                if better is not None and better.cost < state.cost - 1e-9 * state.cost - 1e-300:
                    break
            else:
                continue
            state = better
            break
        else:
            return state


def _redeal(columns: Columns, others: tuple[tuple[int, int], ...], unplaced_before: int) -> State | None:
    """Return the best state with two blocks at most beside the `others` (sets and sizes), or None if there is none."""
    sets, sizes = [s for s, _ in others], [size for _, size in others]
    taken = int(np.bitwise_or.reduce(columns.bits[sets])) if sets else 0
    usable = np.flatnonzero((columns.bits & taken) == 0)
    disjoint = (columns.bits[usable, None] & columns.bits[usable]) == 0
    spare = columns.need - np.array(sizes, dtype=np.intp) @ columns.reaches[sets]
    cost, reaches = columns.cost[usable], columns.reaches[usable].astype(np.intp)
    for unplaced in range(unplaced_before + 1):
        total = columns.instance.n_shards - sum(sizes) - unplaced
        # One block is the one with fewer shards, so half of the divisions are enough.
        part = np.arange(total // 2 + 1)
        sums = cost[:, None, part].transpose(2, 0, 1) + cost[:, total - part].T[:, None, :]
        sums[:, ~disjoint] = np.inf
        flat = sums.ravel()
        # The cheapest fits nearly always; only if not are the others put in order.
        good = np.array([np.argmin(flat)]) if np.isfinite(flat).any() else np.zeros(0, dtype=np.intp)
        begin = 0
        while begin < good.size:
            size, one, two = np.unravel_index(good[begin : begin + _CHUNK], sums.shape)
            room = reaches[one] * size[:, None] + reaches[two] * (total - size)[:, None]
            fits = (room + unplaced >= spare).all(axis=1)
            if fits.any():
                k = int(np.argmax(fits))
                new = [int(usable[one[k]]), int(usable[two[k]])]
                return state_of(columns, [*sets, *new], [*sizes, int(size[k]), int(total - size[k])])
            begin += size.size
            if good.size == 1:
                good = np.flatnonzero(np.isfinite(flat))
                good = good[np.argsort(flat[good], kind="stable")]
    return None
