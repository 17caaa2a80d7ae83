"""Give clients that an assignment leaves out something to do: backup work costs nothing on a work list."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fedgc.assignment.build import residual_error_of
from fedgc.assignment.result import Assignment
from fedgc.validation import check_integer

#: Lists are worked out up to so many times the mean number of shards per client and holder.
_LONGEST_LIST = 6


def longest_list(n_shards: int, n_clients: int, holders: int) -> int:
    """Return up to how many shards a client's progress needs to be known to assign blocks of so many holders.

    Examples
    --------
    >>> longest_list(100, 50, 2), longest_list(10, 5, 5)
    (28, 10)
    """
    return min(n_shards, -(-_LONGEST_LIST * n_shards * holders // n_clients) + 4)


def missed_prob(assignment: Assignment, reach: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the probability that no holder gets the shard in each place done, (n_shards,).

    Parameters
    ----------
    assignment : Assignment
        Blocks and work lists.
    reach : ndarray, shape (n_clients, K + 1)
        Probability of each client to have done at least k shards by the deadline.

    Examples
    --------
    >>> from fedgc.assignment import assign
    >>> reach = np.array([[1.0, 0.9, 0.8], [1.0, 0.5, 0.1]])
    >>> missed_prob(assign(reach, 2, holders=2, schedule="work-list"), reach).round(3).tolist()
    [0.09, 0.1]
    """
    missed = np.ones(assignment.n_shards)
    for client, shards in enumerate(assignment.lists):
        if shards.size:
            place = np.arange(1, shards.size + 1)
            done = np.where(place < reach.shape[1], reach[client, np.minimum(place, reach.shape[1] - 1)], 0.0)
            missed[shards] *= 1.0 - done
    return missed


def residual_error(assignment: Assignment, reach: NDArray[np.float64]) -> float:
    """Return the residual error for incoherent updates of an assignment whose clients make this much progress.

    It is infinite if nothing of some block can ever arrive.
    """
    return residual_error_of(missed_prob(assignment, reach), assignment.block_of_shard)


def own_share(assignment: Assignment, client: int) -> int:
    """Return the number of shards in a client's own share: what it works on before it backs up others."""
    check_integer("client", client, low=0, high=assignment.n_clients - 1)
    first, end = assignment.first[client : client + 2]
    return int((assignment.list_segments[first:end] == 0).sum())


def with_backups(assignment: Assignment, reach: NDArray[np.float64]) -> Assignment:
    """Return the assignment with every client that holds nothing as one more member of a block.

    Parameters
    ----------
    assignment : Assignment
        Work lists; the full schedule is returned as it is, since there another member costs its whole computation.
    reach : ndarray, shape (n_clients, K + 1)
        Probability of each client to have done at least k shards by the deadline.

    Notes
    -----
    One after the other they join the block that misses most, and begin with the shard that is missed most. A client
    that is never asked cannot show that it has come back, so a run leaves nobody out.
    """
    idle = np.flatnonzero(assignment.block_of_client < 0)
    if assignment.schedule != "work-list" or idle.size == 0:
        return assignment
    missed = missed_prob(assignment, reach)
    block_of_client = assignment.block_of_client.copy()
    extra: dict[int, NDArray[np.intp]] = {}
    for client in idle:
        block = int(np.argmax(np.bincount(assignment.block_of_shard, missed)))
        shards = np.flatnonzero(assignment.block_of_shard == block)
        shards = shards[np.argsort(-missed[shards], kind="stable")]
        place = np.minimum(np.arange(1, shards.size + 1), reach.shape[1] - 1)
        missed[shards] *= np.minimum(1.0 - reach[client, place], 0.99)
        block_of_client[client], extra[int(client)] = block, shards
    lists = [extra.get(client, own) for client, own in enumerate(assignment.lists)]
    segments = np.split(assignment.list_segments, assignment.first[1:-1])
    turns = [np.ones_like(extra[client]) if client in extra else own for client, own in enumerate(segments)]
    changed = replace(
        assignment,
        block_of_client=block_of_client,
        list_shards=np.concatenate(lists),
        list_segments=np.concatenate(turns),
        first=np.concatenate(([0], np.cumsum([own.size for own in lists]))),
    )
    return replace(changed, residual_error=residual_error(changed, reach))
