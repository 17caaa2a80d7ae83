"""The exact optimum of the worst-case order of small work lists, by integer programming."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from fedgc.assignment.worst_case_work import work_while_missing
from fedgc.validation import check_positive

Ints = NDArray[np.intp]


def worst_case_lists_exactly(
    holdings: Sequence[ArrayLike], n_shards: int, *, seconds: float = 60.0
) -> tuple[list[Ints], int]:
    """Return lists of the least Q, the most work while some shard is missing, and Q.

    Parameters
    ----------
    holdings, n_shards
        As in :func:`fedgc.assignment.worst_case_order.worst_case_lists`.
    seconds : float
        After which the program gives up.

    Raises
    ------
    ValueError
        If an argument is not what it must be.
    RuntimeError
        If the program gives up before it has an order that is provably best.

    Notes
    -----
    A binary variable for each client, shard and place says whether the shard stands there; each shard of a client
    stands in one place and each place has one shard. The least head start (see
    :func:`fedgc.assignment.worst_case_work.worst_case_bound`) is maximised.

    Examples
    --------
    >>> lists, most = worst_case_lists_exactly([[0, 1], [0, 1, 2]], 3)
    >>> most, work_while_missing(lists, 3).tolist()
    (2, [2, 2, 2])
    """
    # Clients import this package in a process per message, and scipy.optimize takes long.
    from scipy.optimize import Bounds, LinearConstraint, milp  # noqa: PLC0415

    check_positive("seconds", seconds)
    work_while_missing(holdings, n_shards)  # refuses what is not holdings
    total = sum(np.size(own) for own in holdings)
    held = [np.asarray(own, dtype=np.intp) for own in holdings]
    client, shard, place = (
        np.concatenate(parts)
        for parts in zip(
            *(
                (np.full(own.size**2, c), np.repeat(own, own.size), np.tile(np.arange(own.size), own.size))
                for c, own in enumerate(held)
                if own.size
            ),
            strict=True,
        )
    )
    gain = np.array([own.size for own in held])[client] - place
    n_variables = client.size + 1
    once = [
        _indicator(np.unique(client * (n_shards + place.max() + 1) + which, return_inverse=True)[1], n_variables)
        for which in (shard, place)
    ]
    ahead = sparse.csr_array((gain.astype(np.float64), (shard, np.arange(client.size))), shape=(n_shards, n_variables))
    least = sparse.csr_array((np.ones(n_shards), (np.arange(n_shards), np.full(n_shards, client.size))), ahead.shape)
    result = milp(
        np.append(np.zeros(client.size), -1.0),
        constraints=[
            *(LinearConstraint(sparse.csc_array(one), 1.0, 1.0) for one in once),
            LinearConstraint(sparse.csc_array(ahead - least), 0.0, np.inf),
        ],
        integrality=np.ones(n_variables, dtype=np.intp),
        bounds=Bounds(0.0, np.append(np.ones(client.size), float(total))),
        options={"time_limit": seconds},
    )
    if result.status != 0:
        raise RuntimeError(f"the best order must be found within {seconds:g} seconds; got none that is provably best")
    chosen = np.flatnonzero(result.x[:-1] > 0.5)
    lists = [np.zeros(own.size, dtype=np.intp) for own in held]
    for variable in chosen:
        lists[client[variable]][place[variable]] = shard[variable]
    return lists, int(work_while_missing(lists, n_shards).max())


def _indicator(group: Ints, n_variables: int) -> sparse.csr_array[np.float64]:
    """Return a row for each group with ones at its variables."""
    shape = (int(group.max()) + 1, n_variables)
    return sparse.csr_array((np.ones(group.size), (group, np.arange(group.size))), shape=shape)
