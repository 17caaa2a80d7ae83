"""Balance: blocks of equal size that are about equally likely to arrive."""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedgc.codes import FractionalRepetition
from fedgc.validation import check_integer, check_straggle_prob


def number_of_blocks(n_clients: int, load: int) -> int:
    """Return how many blocks of at least `load` members `n_clients` clients can form.

    Raises
    ------
    ValueError
        If `load` is not an integer from 1 to `n_clients`.
    """
    check_integer("n_clients", n_clients, low=1)
    return n_clients // check_integer("load", load, low=1, high=n_clients)


def balanced_members(straggle_prob: ArrayLike, n_blocks: int) -> NDArray[np.intp]:
    """Put clients into blocks of equal size such that every block is about equally likely to arrive.

    Parameters
    ----------
    straggle_prob : array_like, shape (n_clients,)
        Probability that each client misses the deadline.
    n_blocks : int
        Number of blocks, at most n_clients.

    Returns
    -------
    ndarray of int, shape (n_clients,)
        The block of each client.

    Notes
    -----
    Block g is lost with probability ``prod p_i`` over its members. To equalise this, clients are taken from the most
    reliable down, and each joins the block with the fewest members and, among those, with the largest
    ``sum log p_i`` so far (longest processing time first, with equal numbers of members). Ties go to the lower index.

    Examples
    --------
    >>> balanced_members([0.9, 0.8, 0.1, 0.2], 2).tolist()
    [0, 1, 0, 1]
    """
    n_clients = np.size(np.asarray(straggle_prob))
    prob = check_straggle_prob(straggle_prob, n_clients)
    check_integer("n_blocks", n_blocks, low=1, high=n_clients)
    # The floor keeps log finite for clients that never miss; below it, reliability no longer changes the grouping.
    log_prob = np.log(np.maximum(prob, 1e-12))
    # Filling all blocks round by round, not by total alone, keeps their numbers of members within one of each other.
    heap = [(0, 0.0, block) for block in range(n_blocks)]  # members, reliability -sum log p, block
    members = np.empty(n_clients, dtype=np.intp)
    for client in np.argsort(log_prob, kind="stable"):
        count, reliability, block = heapq.heappop(heap)
        members[client] = block
        heapq.heappush(heap, (count + 1, reliability - float(log_prob[client]), block))
    return members


def fractional_repetition_blocks(straggle_prob: ArrayLike, n_shards: int, load: int) -> FractionalRepetition:
    """Assign `n_shards` shards to clients in fractional-repetition blocks.

    Parameters
    ----------
    straggle_prob : array_like, shape (n_clients,)
        Probability that each client misses the deadline; see :func:`balanced_members`.
    n_shards : int
        Number of shards, at least the number of blocks.
    load : int
        Copies of each shard, from 1 to n_clients. If it does not divide n_clients, some blocks have a member more.

    Returns
    -------
    FractionalRepetition
        Shards are dealt out in runs of consecutive indices whose lengths differ by at most one.

    Raises
    ------
    ValueError
        If `load` exceeds the number of clients, or there are more blocks than shards.

    Examples
    --------
    >>> code = fractional_repetition_blocks([0.1, 0.2, 0.3, 0.4], n_shards=6, load=2)
    >>> code.shards_of(0).tolist(), code.blocks.of_client.tolist()
    ([0, 1, 2], [0, 1, 1, 0])
    """
    n_clients = np.size(np.asarray(straggle_prob))
    n_blocks = number_of_blocks(n_clients, load)
    if n_blocks > check_integer("n_shards", n_shards, low=1):
        raise ValueError(
            f"n_shards must be at least the number of blocks, n_clients // load = {n_blocks}; got {n_shards}"
        )
    return FractionalRepetition(balanced_members(straggle_prob, n_blocks), np.arange(n_shards) * n_blocks // n_shards)
