"""Cost of an assignment: the residual error that it leads to."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Ints = NDArray[np.intp]
Floats = NDArray[np.float64]

#: In a search a shard that can never arrive costs this much, so that one such shard fewer is progress.
_NEVER = 1e9


def check_reach(reach: ArrayLike) -> Floats:
    """Return `reach` as a float matrix, or raise ValueError.

    Parameters
    ----------
    reach : array_like, shape (n_clients, K + 1)
        Probability that client i has done at least k shards by the deadline; 1 for k = 0, and never rising with k.

    Raises
    ------
    ValueError
        If the shape or an entry is not as above; the message names the first client.
    """
    matrix = np.array(reach, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] < 1 or matrix.shape[1] < 2:
        raise ValueError(f"reach must have shape (n_clients, K + 1) with K of at least 1; got shape {matrix.shape}")
    for what, good in (
        ("lie in [0, 1]", ((matrix >= 0.0) & (matrix <= 1.0)).all(axis=1)),
        ("begin with 1, the probability of doing at least no shard", matrix[:, 0] == 1.0),
        ("never rise from one number of shards to the next", (np.diff(matrix, axis=1) <= 0.0).all(axis=1)),
    ):
        if not good.all():
            first = int(np.argmin(good))
            raise ValueError(f"reach must {what}; got {matrix[first].tolist()} for client {first}")
    return matrix


def missing_probability(reach: Floats, computation: Ints | None) -> Floats:
    """Return a table of the probability that each client has not done k shards, (n_clients + 1, K + 2).

    Beyond its computation limit and beyond K a client gets nothing done; the last row stands for no client.
    """
    n_clients, width = reach.shape
    miss = np.ones((n_clients + 1, width + 1))
    miss[:-1, :-1] = 1.0 - reach
    if computation is not None:
        miss[:-1][np.arange(width + 1) > computation[:, None]] = 1.0
    return miss


def missing_odds(missed: Floats, *, exact: bool = False) -> Floats:
    """Return ``P / (1 - P)``, the variance of an optimally weighted shard update that is missed with probability P.

    A shard that is always missed costs 1e9 in a search and infinity if `exact`.

    Examples
    --------
    >>> missing_odds(np.array([0.0, 0.5, 0.75])).tolist()
    [0.0, 1.0, 3.0]
    """
    if exact:
        with np.errstate(divide="ignore"):
            return np.asarray(missed / (1.0 - missed))
    return missed / np.maximum(1.0 - missed, 1.0 / _NEVER)


def full_cost(miss: Floats, members: Ints, sizes: Ints) -> Floats:
    """Return the cost of each block whose members all compute the whole of it.

    Parameters
    ----------
    miss : ndarray, shape (n_clients + 1, K + 2)
        As from :func:`missing_probability`.
    members : ndarray of int, shape (n_blocks, n_slots)
        Members, padded with n_clients.
    sizes : ndarray of int, shape (n_blocks,)
        Shards in each block.

    Returns
    -------
    ndarray, shape (n_blocks,)
        ``size x P / (1 - P)`` with ``P = prod (1 - reach[i, size])`` over the members.

    Examples
    --------
    >>> miss = missing_probability(np.array([[1.0, 0.9, 0.5], [1.0, 0.5, 0.5]]), None)
    >>> full_cost(miss, np.array([[0, 1], [0, 2]]), np.array([2, 1])).round(4).tolist()
    [0.6667, 0.1111]
    """
    where = np.minimum(sizes, miss.shape[1] - 1)
    missed = np.ones(sizes.size)
    for slot in members.T:
        missed *= miss.ravel().take(slot * miss.shape[1] + where)
    return np.asarray(sizes * missing_odds(missed))
