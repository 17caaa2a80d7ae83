"""The same assignment for other clients: when some leave, join, or are numbered anew."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from fedgc.assignment.result import Assignment


def for_clients(assignment: Assignment, clients: ArrayLike) -> Assignment:
    """Return the assignment with other clients: client i of the result is `clients[i]` of the given one.

    Parameters
    ----------
    assignment : Assignment
        Blocks and work lists.
    clients : array_like of int, shape (n,)
        Client of `assignment` for each client of the result; -1 for a new one, which holds nothing.

    Raises
    ------
    ValueError
        If a number is out of range, or a client is named twice.

    Examples
    --------
    >>> from fedgc.assignment import assign
    >>> pair = assign([[1, 0.9, 0.8], [1, 0.9, 0.8]], 2, holders=2, schedule="work-list")
    >>> [shards.tolist() for shards in for_clients(pair, [1, -1, 0]).lists]
    [[1, 0], [], [0, 1]]
    """
    index = np.asarray(clients, dtype=np.intp)
    known = index[index >= 0]
    if index.ndim != 1 or (index < -1).any() or (index >= assignment.n_clients).any():
        raise ValueError(
            f"clients must be from -1 to {assignment.n_clients - 1}, in one dimension; got {index.tolist()}"
        )
    if np.unique(known).size != known.size:
        raise ValueError(f"clients must name each client once; got {index.tolist()}")
    segments = np.split(assignment.list_segments, assignment.first[1:-1])
    nothing = np.zeros(0, dtype=np.intp)
    lists = [assignment.lists[client] if client >= 0 else nothing for client in index]
    turns = [segments[client] if client >= 0 else nothing for client in index]
    return replace(
        assignment,
        block_of_client=np.where(index >= 0, assignment.block_of_client[index], -1),
        list_shards=np.concatenate(lists),
        list_segments=np.concatenate(turns),
        first=np.concatenate(([0], np.cumsum([own.size for own in lists]))),
    )
