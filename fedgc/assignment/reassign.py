"""Adapt an assignment during a run, when the gain pays for moving the data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedgc.assignment.build import build
from fedgc.assignment.constraints import AssignmentConstraints
from fedgc.assignment.cost import check_reach
from fedgc.assignment.dealing import deal_like
from fedgc.assignment.feasibility import check_each, diagnosis
from fedgc.assignment.greedy import Rows
from fedgc.assignment.instance import Instance, make_instance
from fedgc.assignment.local_search import shift_shards
from fedgc.assignment.optimise import find_blocks
from fedgc.assignment.repair import repaired
from fedgc.assignment.result import Assignment
from fedgc.assignment.tied import counts_of, tied_of
from fedgc.validation import check_integer, check_vector

Ints = NDArray[np.intp]


def reassign(
    old: Assignment,
    reach: ArrayLike,
    *,
    holders: int | tuple[int, int],
    round_seconds: float,
    rounds_left: int,
    seconds_per_shard: float,
    alive: ArrayLike | None = None,
    constraints: AssignmentConstraints | None = None,
    rng: np.random.Generator | int = 0,
) -> Assignment:
    """Return the assignment for the rounds to come: the old one, unless another one pays for the move.

    Parameters
    ----------
    old : Assignment
        The assignment so far.
    reach : array_like, shape (n_clients, K + 1)
        As in :func:`fedgc.assignment.assign`, as it is expected from now on. Rows of dead clients do not matter.
    holders : int or (int, int)
        Members of every block, or the fewest and the most.
    round_seconds : float
        Seconds that a round takes.
    rounds_left : int
        Rounds that would be left if nothing were ever missed.
    seconds_per_shard : float
        Seconds that it takes to move one shard to one more client. If moves run in parallel, divide by how many do.
    alive : array_like of bool, shape (n_clients,), optional
        False for a client that has gone for good; its shards go to others.
    constraints : AssignmentConstraints, optional
        Storage, computation, failure domains and residency, as they are now.
    rng : numpy.random.Generator or int
        Source of the search's random choices, or a seed for one.

    Returns
    -------
    Assignment
        Over all clients; the dead hold nothing. Work lists are always ordered by `reach`, which moves nothing.

    Raises
    ------
    ValueError
        If an argument is not what it must be, or `old` is about other clients.
    InfeasibleAssignmentError
        If the clients that are left cannot meet the constraints.

    Notes
    -----
    To a first approximation the rounds to a target grow as ``1 + residual error``. Compared with the least that must be
    done, the old assignment with the shards of the dead moved to others, another one therefore saves
    ``rounds_left x round_seconds x (its residual error - the other's)`` seconds and costs ``seconds_per_shard`` for
    each shard copy that it moves beyond. Of the old one, the old blocks with some shards shifted, and blocks chosen
    anew (with shards dealt such that their members hold many already), the one with the largest difference is returned.

    Examples
    --------
    >>> from fedgc.assignment import assign
    >>> reach = [[1, 0.9, 0.7, 0.4], [1, 0.9, 0.7, 0.4], [1, 0.6, 0.2, 0], [1, 0.6, 0.2, 0]]
    >>> old = assign(reach, 6, holders=2, schedule="work-list")
    >>> options = dict(holders=2, round_seconds=60.0, seconds_per_shard=30.0)
    >>> changed = [reach[0], reach[2], reach[1], reach[3]]
    >>> reassign(old, changed, rounds_left=2, **options).shards_moved(old)
    0
    >>> new = reassign(old, changed, rounds_left=500, **options)
    >>> [block.members for block in old.blocks], [block.members for block in new.blocks], new.shards_moved(old)
    ([(0, 2), (1, 3)], [(0, 1), (2, 3)], 6)
    """
    matrix = check_reach(reach)
    if matrix.shape[0] != old.n_clients:
        raise ValueError(f"reach must have a row for each of old's {old.n_clients} clients; got {matrix.shape[0]}")
    here = np.ones(old.n_clients, dtype=np.bool_) if alive is None else np.asarray(alive)
    if here.shape != (old.n_clients,) or here.dtype != np.bool_ or not here.any():
        raise ValueError(f"alive must be {old.n_clients} booleans, not all of them False; got {here.tolist()}")
    check_integer("rounds_left", rounds_left, low=0)
    prices = {"round_seconds": round_seconds, "seconds_per_shard": seconds_per_shard}
    for name, value in prices.items():
        check_vector(name, [value], length=1, low=0.0)
    clients = np.flatnonzero(here)
    given = constraints if constraints is not None else AssignmentConstraints()
    make_instance(matrix, old.n_shards, holders, old.schedule, given)  # for errors in terms of all clients
    instance = make_instance(matrix[clients], old.n_shards, holders, old.schedule, given.for_clients(clients))
    check_each(instance)

    candidates = [
        _over_all(build(instance, members, block_of_shard), clients, old.n_clients)
        for members, block_of_shard in _candidates(instance, old, old.block_of_client[clients], rng)
    ]
    moved = [candidate.shards_moved(old) for candidate in candidates]

    # From the best one, since what moves least may leave a shard that can never arrive: an infinite error.
    best, horizon = min(candidate.residual_error for candidate in candidates), rounds_left * round_seconds

    def net(index: int) -> float:
        error = candidates[index].residual_error
        lost = horizon * (error - best) if horizon > 0.0 and error > best else 0.0
        return -lost - seconds_per_shard * (moved[index] - moved[0])

    return candidates[max(range(len(candidates)), key=net)]


def _candidates(
    instance: Instance, old: Assignment, block_of_client: Ints, rng: np.random.Generator | int
) -> list[tuple[Ints, Ints]]:
    """Return rows of members with the row of each shard; first the one that moves least."""
    candidates = []
    kept = repaired(instance, block_of_client, old.block_of_shard)
    if kept is not None:
        candidates.append(kept)
        members, row_of_shard = kept
        sizes = np.bincount(row_of_shard, minlength=members.shape[0])
        tied = tied_of(row_of_shard, instance.class_of_shard, np.ones_like(row_of_shard), len(instance.allowed))
        shifted = shift_shards(instance, Rows(members, sizes, tied), rounds=4, coarse=False)
        counts = counts_of(instance, shifted.sizes, shifted.tied)
        candidates.append((members, deal_like(instance, counts, members, block_of_client, old.block_of_shard)))
    found = find_blocks(instance, np.random.default_rng(rng))
    if found.blocks is not None:
        members, counts = found.blocks
        candidates.append((members, deal_like(instance, counts, members, block_of_client, old.block_of_shard)))
    if not candidates:
        raise diagnosis(instance, impossible=found.impossible)
    return candidates


def _over_all(assignment: Assignment, clients: Ints, n_clients: int) -> Assignment:
    """Return the assignment of some of the clients as one of all of them."""
    block_of_client = np.full(n_clients, -1, dtype=np.intp)
    block_of_client[clients] = assignment.block_of_client
    lengths = np.zeros(n_clients, dtype=np.intp)
    lengths[clients] = np.diff(assignment.first)
    block_of_client.setflags(write=False)
    return replace(assignment, block_of_client=block_of_client, first=np.concatenate(([0], np.cumsum(lengths))))
