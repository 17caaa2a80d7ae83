"""Cyclic repetition: any n - s clients together give the exact sum."""

from __future__ import annotations

import numpy as np

from fedgc.codes.matrix import MatrixCode
from fedgc.validation import check_integer


class CyclicRepetition(MatrixCode):
    """Client i holds the shards i, i + 1, ..., i + s (modulo n); any s clients may miss.

    Parameters
    ----------
    n_clients : int
        Number of clients and of shards.
    n_stragglers : int
        How many clients may miss, s from 0 to n_clients - 1. The load is s + 1.
    rng : numpy.random.Generator
        Draws the random matrix behind the coefficients.

    Notes
    -----
    Take a random matrix H of shape (s, n) whose rows sum to zero. Row i of the encoding matrix is the vector on its
    support, with first coefficient one, that H maps to zero; the null space of H has dimension n - s and holds the
    all-ones vector, and almost surely any n - s rows span it. Least-squares decoding then gives the exact sum from any
    n - s clients. Coefficients of either sign grow with s, so that the numbers lose digits beyond s of about 10.

    References
    ----------
    R. Tandon, Q. Lei, A. G. Dimakis, N. Karampatziakis, "Gradient Coding", ICML 2017, Algorithm 2.

    Examples
    --------
    >>> code = CyclicRepetition(4, 1, rng=np.random.default_rng(0))
    >>> [code.shards_of(client).tolist() for client in range(4)]
    [[0, 1], [1, 2], [2, 3], [0, 3]]
    """

    def __init__(self, n_clients: int, n_stragglers: int, *, rng: np.random.Generator) -> None:
        check_integer("n_clients", n_clients, low=1)
        s = check_integer("n_stragglers", n_stragglers, low=0, high=n_clients - 1)
        h = rng.standard_normal((s, n_clients))
        h[:, -1] = -h[:, :-1].sum(axis=1)
        matrix = np.zeros((n_clients, n_clients))
        for client in range(n_clients):
            support = (client + np.arange(s + 1)) % n_clients
            matrix[client, support[0]] = 1.0
            matrix[client, support[1:]] = -np.linalg.solve(h[:, support[1:]], h[:, support[0]])
        super().__init__(matrix)
