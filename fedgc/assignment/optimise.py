"""Assign: the blocks of least predicted residual error, by a greedy start and local search."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from fedgc.assignment.build import build
from fedgc.assignment.columns import classes_of_blocks, is_small, make_columns
from fedgc.assignment.constraints import AssignmentConstraints
from fedgc.assignment.dealing import Counts, deal_shards
from fedgc.assignment.exchange import search_small, state_of
from fedgc.assignment.feasibility import check_each, diagnosis
from fedgc.assignment.greedy import Rows, greedy_starts
from fedgc.assignment.instance import Instance, make_instance
from fedgc.assignment.listed_rows import listed_rows
from fedgc.assignment.local_search import search_large
from fedgc.assignment.mending import mended
from fedgc.assignment.milp import feasible_columns
from fedgc.assignment.relaxation import copies_have_no_place
from fedgc.assignment.result import Assignment
from fedgc.assignment.tied import counts_of

Ints = NDArray[np.intp]

#: Seconds after which an integer program gives up: where an assignment is wanted, and where only an error is worded.
_SECONDS, _SECONDS_TO_WORD = 20.0, 5.0
#: Part of the usual effort of a search where only an error is worded.
_EFFORT_TO_WORD = 0.25


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a search came to.

    Attributes
    ----------
    blocks : (ndarray, coo_array) or None
        Blocks as rows of members, and the shards of each residency class in each row; None if none were found.
    impossible : bool
        Whether there are provably none.
    """

    blocks: tuple[Ints, Counts] | None
    impossible: bool = False


def assign(
    reach: ArrayLike,
    n_shards: int,
    *,
    holders: int | tuple[int, int],
    schedule: str,
    constraints: AssignmentConstraints | None = None,
    rng: np.random.Generator | int = 0,
) -> Assignment:
    """Choose blocks, their shards and all work lists such that the predicted residual error is small.

    Parameters
    ----------
    reach : array_like, shape (n_clients, K + 1)
        Probability that client i has done at least k shards by the round's deadline: 1 for k = 0, never rising, and
        zero beyond K. It contains absence, speed and deadline.
    n_shards : int
        Number of shards.
    holders : int or (int, int)
        Members of every block, or the fewest and the most; 1 means no redundancy. Clients that do not make up a block,
        or would not help, hold nothing.
    schedule : str
        "full": every member computes the whole block and sends it when finished. "work-list": every member works down
        its own order of the block's shards until the deadline, and shards are recovered singly.
    constraints : AssignmentConstraints, optional
        Storage, computation, failure domains and residency.
    rng : numpy.random.Generator or int
        Source of the search's random choices, or a seed for one.

    Returns
    -------
    Assignment
        The best found.

    Raises
    ------
    ValueError
        If an argument is not what it must be.
    InfeasibleAssignmentError
        If the constraints cannot be met. For instances too large to list all blocks, it may also be that the search
        found no way to meet them; where one constraint alone cannot be met, the message says so with its numbers.

    Notes
    -----
    The cost is the sum over blocks of ``m P / (1 - P)``, where P is the mean over the block's m shards of the
    probability that no holder gets the shard done: ``prod (1 - reach[i, size])`` in the full schedule and
    ``prod (1 - reach[i, position of the shard in i's list])`` with work lists. Divided by the number of shards it is
    the residual error of the optimal unbiased decoder for incoherent updates, where the shards of a block change places
    at random (:func:`fedgc.codes.redraw_places`): how many are done then matters, not which. Grouping clients under
    this cost contains partition problems, so the search is local: small instances try every re-deal of two blocks
    (:mod:`fedgc.assignment.exchange`), large ones random ones in parallel (:mod:`fedgc.assignment.local_search`).
    :func:`fedgc.assignment.solve_exactly` is the exact counterpart.

    Examples
    --------
    >>> reach = [[1, 0.9, 0.7, 0.4], [1, 0.9, 0.7, 0.4], [1, 0.6, 0.2, 0], [1, 0.6, 0.2, 0]]
    >>> pairs = assign(reach, 6, holders=2, schedule="work-list")
    >>> [block.members for block in pairs.blocks], [shards.tolist() for shards in pairs.lists]
    ([(0, 2), (1, 3)], [[0, 1, 2], [3, 4, 5], [2, 1, 0], [5, 4, 3]])
    >>> alone = assign(reach, 6, holders=1, schedule="work-list")
    >>> round(alone.residual_error, 3), round(pairs.residual_error, 3)
    (0.389, 0.24)
    """
    instance = make_instance(reach, n_shards, holders, schedule, constraints)
    check_each(instance)
    found = find_blocks(instance, np.random.default_rng(rng))
    if found.blocks is None:
        raise diagnosis(instance, impossible=found.impossible)
    members, counts = found.blocks
    return build(instance, members, deal_shards(instance, counts))


def find_blocks(instance: Instance, rng: np.random.Generator | None) -> Outcome:
    """Return blocks that meet the constraints, and good ones if there is an rng.

    For small instances there are none if none are found. For large ones greedy starts are mended if they are not
    feasible, and if that fails an integer program over all blocks decides, where these can be listed and time suffices.
    """
    if is_small(instance):
        blocks = _find_small(instance, rng)
        return Outcome(blocks, impossible=blocks is None)
    starts, others = greedy_starts(instance)
    if not starts:
        if copies_have_no_place(instance):
            return Outcome(None, impossible=True)
        worded = rng is None
        random = np.random.default_rng(0) if rng is None else rng
        found: Rows | None = mended(instance, others, random, part=_EFFORT_TO_WORD if worded else 1.0)
        if found is None:
            found, impossible = listed_rows(instance, seconds=_SECONDS_TO_WORD if worded else _SECONDS)
            if found is None:
                return Outcome(None, impossible)
        starts = [found]
    best = starts[0] if rng is None else search_large(instance, starts, rng)
    return Outcome((best.members, counts_of(instance, best.sizes, best.tied)))


def _find_small(instance: Instance, rng: np.random.Generator | None) -> tuple[Ints, Counts] | None:
    columns = make_columns(instance, with_cost=rng is not None)
    state = None
    if rng is not None:
        state = search_small(columns, state_of(columns, [], []), rng)
    if state is None or state.unplaced:
        # The search can get stuck where room is scarce; the integer program knows whether there is any.
        feasible = feasible_columns(columns)
        if feasible is None:
            return None
        state = state_of(columns, feasible[0].tolist(), feasible[1].tolist())
        if rng is not None:
            state = search_small(columns, state, rng)
    sets = np.array(state.sets)
    sets_by_member = np.lexsort(columns.members[sets].T[::-1])
    counts = classes_of_blocks(columns.may_hold()[sets], state.sizes, instance.class_sizes)
    if counts is None:
        raise RuntimeError("the search's answer breaks a residency rule")
    return columns.members[sets][sets_by_member], sparse.coo_array(counts[sets_by_member])
