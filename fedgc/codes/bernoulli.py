"""Bernoulli gradient code: every client holds every shard with the same probability."""

from __future__ import annotations

import numpy as np

from fedgc.codes.matrix import MatrixCode
from fedgc.validation import check_integer, check_positive


class BernoulliCode(MatrixCode):
    """Each entry of the encoding matrix is one with probability ``load / n_clients``, independently, else zero.

    Parameters
    ----------
    n_clients, n_shards : int
        Numbers of clients and shards.
    load : float
        Mean number of copies of a shard, above 0 and at most n_clients.
    rng : numpy.random.Generator
        Draws the entries.
    keep_all : bool
        Whether a shard that nobody would hold is given to one random client. Without it, as published, about
        ``exp(-load)`` of the shards are lost for good.

    References
    ----------
    Z. Charles, D. Papailiopoulos, J. Ellenberg, "Approximate Gradient Coding via Sparse Random Graphs", 2017,
    arXiv 1711.06771.

    Examples
    --------
    >>> BernoulliCode(50, 40, 4, rng=np.random.default_rng(0)).load
    4.125
    """

    def __init__(
        self, n_clients: int, n_shards: int, load: float, *, rng: np.random.Generator, keep_all: bool = True
    ) -> None:
        check_integer("n_clients", n_clients, low=1)
        check_integer("n_shards", n_shards, low=1)
        if check_positive("load", load) > n_clients:
            raise ValueError(f"load must be at most n_clients = {n_clients}; got {load}")
        held = rng.random((n_clients, n_shards)) < load / n_clients
        rescue = rng.integers(0, n_clients, n_shards)
        if keep_all:
            lost = np.flatnonzero(~held.any(axis=0))
            held[rescue[lost], lost] = True
        super().__init__(held.astype(np.float64), allow_unheld=not keep_all)
