"""Order the work lists of blocks: own shares by speed, and who helps whom first."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedgc.assignment.cost import missing_odds

Ints = NDArray[np.intp]
Floats = NDArray[np.float64]

#: Blocks with more members keep shares by speed; trying every pair of members would cost more than it brings.
MOST_MEMBERS = 6
_PASSES = 12


def shares_by_speed(sizes: Ints, speed: Floats, limit: Ints) -> Ints:
    """Divide the shards of each block among its members in proportion to their speed.

    Parameters
    ----------
    sizes : ndarray of int, shape (n_blocks,)
        Shards in each block, at most the sum of its members' limits.
    speed : ndarray, shape (n_blocks, n_slots)
        Expected number of shards that each member does by the deadline; 0 where there is no member.
    limit : ndarray of int, shape (n_blocks, n_slots)
        Most shards in each share; 0 where there is no member.

    Returns
    -------
    ndarray of int, shape (n_blocks, n_slots)
        Shares by largest remainders, ties to the lower slot. What a limit cuts off goes to the others.

    Examples
    --------
    >>> shares_by_speed(np.array([5]), np.array([[1.0, 3.0]]), np.array([[5, 5]])).tolist()
    [[1, 4]]
    """
    # A member without any speed still needs a weight, for the case that all others are full.
    weight = np.where(limit > 0, speed + 1e-9 * (speed.sum(axis=1, keepdims=True) + 1.0), 0.0)
    quota: Floats = weight * (sizes / np.maximum(weight.sum(axis=1), 1e-300))[:, None]
    open_ = limit > 0
    for _ in range(limit.shape[1]):
        over = open_ & (quota > limit)
        if not over.any():
            break
        quota = np.where(over, limit, quota)
        open_ &= ~over
        left = sizes - quota.sum(axis=1, where=~open_)
        total = weight.sum(axis=1, where=open_)
        level = np.where(total > 0.0, left / np.where(total > 0.0, total, 1.0), 0.0)
        quota = np.where(open_, weight * level[:, None], quota)
    # The tolerance keeps a quota of 2.9999999999 from losing its shard to a member of a later slot.
    shares = np.minimum(np.floor(quota + 1e-9).astype(np.intp), limit)
    for _ in range(limit.shape[1] + 1):
        short = sizes - shares.sum(axis=1)
        if not short.any():
            break
        key = np.where(shares < limit, quota - shares, -np.inf)
        turn = np.argsort(np.argsort(-key, axis=1, kind="stable"), axis=1, kind="stable")
        shares = shares + ((turn < short[:, None]) & (shares < limit))
    return shares


def visiting_turns(shares: Ints, speed: Floats, present: NDArray[np.bool_], way: str = "ahead first") -> Ints:
    """Return in which turn each member visits each share, (n_blocks, n_slots, n_slots); turn 0 is its own.

    The members stand in a circle, from the one expected to be furthest behind to the one furthest ahead. In the way
    "ahead first" everyone goes round it in the same direction from where it stands, so that no two helpers ever start
    with the same share and the member furthest ahead starts with the one furthest behind. "behind first" goes round
    the other way; in "same order" everyone visits the shares from the furthest behind on.
    """
    n_slots = shares.shape[1]
    # Rounds that the own share takes; a small speed keeps absent members from dividing by zero.
    backlog = np.where(present, shares / np.maximum(speed, 1e-9), -1.0)
    place = np.argsort(np.argsort(-backlog, axis=1, kind="stable"), axis=1, kind="stable")
    count = np.maximum(present.sum(axis=1), 1)[:, None, None]
    if way == "same order":
        turn = place[:, None, :] + (place[:, None, :] < place[:, :, None])
        turn[:, np.arange(n_slots), np.arange(n_slots)] = 0
        return turn
    step = place[:, None, :] - place[:, :, None]
    return np.asarray((step if way == "ahead first" else -step) % count, dtype=np.intp)


def places(shares: Ints, turns: Ints) -> tuple[Ints, Ints, Ints]:
    """Return at which position of every member's list each shard stands.

    Parameters
    ----------
    shares : ndarray of int, shape (n_blocks, n_slots)
        Sizes of the own shares.
    turns : ndarray of int, shape (n_blocks, n_slots, n_slots)
        As from :func:`visiting_turns`.

    Returns
    -------
    block, owner : ndarray of int, shape (n_shards,)
        Block of each shard and slot of the member whose own share it is in; shards run block by block, slot by slot.
    position : ndarray of int, shape (n_slots, n_shards)
        Position, from 1, in the list of the member in each slot. The owner walks its share from one end, all others
        from the other.
    """
    n_blocks, n_slots = shares.shape
    flat = shares.ravel()
    slot = np.repeat(np.arange(n_blocks * n_slots), flat)
    place = np.arange(slot.size) - np.repeat(np.cumsum(flat) - flat, flat)
    block, owner = np.divmod(slot, n_slots)
    from_end = flat[slot] - place
    before = np.empty((n_slots, flat.size), dtype=np.intp)
    for member in range(n_slots):
        turn = turns[:, member]
        before[member] = (shares[:, :, None] * (turn[:, :, None] < turn[:, None, :])).sum(axis=1).ravel()
    position = before.take(slot, axis=1)
    position += from_end
    position[owner, np.arange(slot.size)] = place + 1
    return block, owner, position


def work_list_cost(miss: Floats, members: Ints, shares: Ints, turns: Ints) -> Floats:
    """Return the cost of each block, ``m P / (1 - P)`` with P the mean over its m shards, (n_blocks,)."""
    block, _, position = places(shares, turns)
    return block_cost(miss, members, block, position)


def block_cost(miss: Floats, members: Ints, block: Ints, position: Ints) -> Floats:
    """Return the cost of each block, of whose shards block and positions are as from :func:`places`, (n_blocks,)."""
    entry = np.minimum(position, miss.shape[1] - 1)
    entry += (members.T * miss.shape[1]).take(block, axis=1)
    missed = np.bincount(block, miss.ravel().take(entry).prod(axis=0), members.shape[0])
    size = np.bincount(block, minlength=members.shape[0])
    return np.asarray(size * missing_odds(missed / np.maximum(size, 1)))


def best_lists(miss: Floats, members: Ints, sizes: Ints, speed: Floats, limit: Ints) -> tuple[Ints, Ints, Floats]:
    """Choose shares and turns for each block by local search.

    Parameters
    ----------
    miss : ndarray, shape (n_clients + 1, n + 2)
        Probability that each client has not done k shards; the last row, ones, stands for an empty slot.
    members : ndarray of int, shape (n_blocks, n_slots)
        Members, ascending, padded with n_clients.
    sizes : ndarray of int, shape (n_blocks,)
        Shards in each block.
    speed, limit : ndarray, shape (n_clients + 1,)
        Expected progress of each client, and most shards in its list; 0 for an empty slot.

    Returns
    -------
    shares, turns, cost : ndarray
        What :func:`work_list_cost` takes and returns.

    Notes
    -----
    From shares by speed and the best of three ways to visit, moves are tried until none helps: some shards from one
    share to another (a quarter of the block's, a sixteenth, one), and two neighbouring turns of a member exchanged.
    Since a list begins with the own share and only improvements are accepted, no block costs more than its members
    would with the same shares by speed and no one to help.
    """
    own, most = speed[members], np.minimum(limit[members], sizes[:, None])
    present = most > 0
    shares = shares_by_speed(sizes, own, most)
    turns = visiting_turns(shares, own, present)
    found = _Lists(miss, members, shares, turns)
    cost = found.cost
    count = present.sum(axis=1)
    active = np.flatnonzero((count > 1) & (count <= MOST_MEMBERS) & (sizes > 0))
    for way in ("behind first", "same order"):
        rows = active[count[active] > 2]
        other = visiting_turns(shares[rows], own[rows], present[rows], way)
        found.try_instead(rows, shares[rows], other)
    for _ in range(_PASSES):
        if active.size == 0:
            break
        before = cost[active]
        for giver, taker, part in _transfers(min(members.shape[1], MOST_MEMBERS)):
            step = np.maximum(sizes[active] // part, 1) if part else np.ones(active.size, dtype=np.intp)
            fits = (shares[active, giver] >= step) & (shares[active, taker] + step <= most[active, taker])
            # Steps that have shrunk to one shard are tried once, not at every scale.
            rows = active[fits & ((step > 1) | (part == 0))]
            step = step[fits & ((step > 1) | (part == 0))]
            trial = shares[rows]
            trial[:, giver] -= step
            trial[:, taker] += step
            found.try_instead(rows, trial, turns[rows])
        for member in range(min(members.shape[1], MOST_MEMBERS)):
            for turn in range(1, min(members.shape[1], MOST_MEMBERS) - 1):
                rows = active[(count[active] > turn + 1) & present[active, member]]
                trial = turns[rows]
                row = trial[:, member]
                trial[:, member] = np.where(row == turn, turn + 1, np.where(row == turn + 1, turn, row))
                found.try_instead(rows, shares[rows], trial)
        active = active[cost[active] < before * (1.0 - 1e-12)]
    return shares, turns, cost


def _transfers(n_slots: int) -> list[tuple[int, int, int]]:
    pairs = [(giver, taker) for giver in range(n_slots) for taker in range(n_slots) if giver != taker]
    return [(giver, taker, part) for part in (4, 16, 0) for giver, taker in pairs]


class _Lists:
    """Shares and turns of all blocks, improved in place."""

    def __init__(self, miss: Floats, members: Ints, shares: Ints, turns: Ints) -> None:
        self.miss, self.members, self.shares, self.turns = miss, members, shares, turns
        self.cost = work_list_cost(miss, members, shares, turns)

    def try_instead(self, rows: Ints, shares: Ints, turns: Ints) -> None:
        """Put other shares and turns of `rows` in place wherever they cost less."""
        if rows.size == 0:
            return
        trial = work_list_cost(self.miss, self.members[rows], shares, turns)
        better = trial < self.cost[rows] * (1.0 - 1e-12)
        self.shares[rows[better]], self.turns[rows[better]] = shares[better], turns[better]
        self.cost[rows[better]] = trial[better]
