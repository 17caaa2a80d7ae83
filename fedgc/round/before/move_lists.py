"""Move shards between work lists: where that pays for the fetching, or where nodes have come or gone."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray

from fedgc.assignment import Assignment, InfeasibleAssignmentError, for_clients, longest_list, reassign, with_backups
from fedgc.decoders import AUTO
from fedgc.round.before.choose_lists import Given, Lists, earlier_ends, foresee, with_everyone
from fedgc.round.before.loads import other_loads

#: Lists of nodes that have changed are made for a round that ends when all copies could be done so many times.
_ROOM = 2.0


def moved_lists(given: Given, present: Assignment) -> Lists:
    """Return lists with those shards moved for which it pays over the rounds that are left.

    Notes
    -----
    With t the predicted time to target in seconds per noise-free round, lists save ``rounds left x (t now - t then)``
    and cost ``fetch_seconds / number of nodes`` for each shard copy that moves, since all nodes fetch at once. Of the
    present lists, and those that :func:`fedgc.assignment.reassign` finds by the deadline and by earlier ends, the ones
    with the largest difference are returned.
    """
    now = foresee(given, present)
    if not given.known or not given.rounds_left:
        return now
    # Lists for the deadline miss less, which cannot save more than what is missed now.
    most = given.rounds_left * now.forecast.round_time * now.forecast.residual_error
    ends = [given.deadline] if most > _seconds_per_shard(given, given.deadline) else []
    best, least = now, 0.0
    loads = [given.copies]
    if given.planning.load == AUTO:
        loads += [way[0] for way in other_loads(given.copies, len(given.nodes)) if way]
    for seconds, copies in product((*ends, *earlier_ends(given, now)), loads):
        reach = given._replace(copies=copies).reach(seconds)
        try:
            moved = _moved(given, present, reach, seconds=seconds, holders=copies)
        except InfeasibleAssignmentError:
            continue
        then = foresee(given, with_everyone(given, moved, reach))
        if not np.isfinite(then.time):
            continue
        price = _seconds_per_shard(given, seconds) * then.assignment.shards_moved(present)
        net = given.rounds_left * (now.time - then.time) - price
        if net > least:
            best, least = then, net
    return best


def carried_over(given: Given) -> Assignment | None:
    """Return the last lists for changed nodes: shards of those who left go to others, the rest mostly stay.

    With constraints, which are stated for given nodes, everything is assigned anew.
    """
    old = given.state.plan
    if old is None or old.assignment is None or old.deadline is None or given.planning.constraints is not None:
        return None
    everyone = sorted({*old.everyone, *given.nodes})
    if old.assignment.schedule != "work-list" or not set(old.everyone) & set(given.nodes):
        return None
    place = {node: client for client, node in enumerate(old.everyone)}
    here = np.isin(everyone, given.nodes)
    # Nodes may come and go every round, too often to forecast each time when rounds will end.
    seconds = min(old.deadline, _ROOM * given.seconds_for_all_copies()) if given.known else old.deadline
    longest = longest_list(given.n_shards, len(given.nodes), given.copies)
    reach = np.zeros((len(everyone), longest + 1))
    reach[:, 0] = 1.0
    reach[here] = given.timing.reach(seconds, longest)
    former = for_clients(old.assignment, [place.get(node, -1) for node in everyone])
    try:
        changed = _moved(given, former, reach, seconds=seconds, holders=(1, given.copies + 1), alive=here)
    except InfeasibleAssignmentError:
        return None
    return with_backups(for_clients(changed, np.flatnonzero(here)), reach[here])


def _seconds_per_shard(given: Given, seconds: float) -> float:
    fetch = given.planning.fetch_seconds
    return seconds / given.n_shards if fetch is None else fetch / len(given.nodes)


def _moved(
    given: Given,
    assignment: Assignment,
    reach: NDArray[np.float64],
    *,
    seconds: float,
    holders: int | tuple[int, int],
    alive: NDArray[np.bool_] | None = None,
) -> Assignment:
    """Return the assignment with those shards moved for which it pays in rounds of so many seconds."""
    return reassign(
        assignment,
        reach,
        holders=holders,
        round_seconds=seconds,
        rounds_left=given.rounds_left,
        seconds_per_shard=_seconds_per_shard(given, seconds),
        alive=alive,
        constraints=given.planning.constraints,
    )
