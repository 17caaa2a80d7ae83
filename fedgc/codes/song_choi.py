"""The base paper's two codes, whose coefficients follow the straggle probabilities (Theorem 1)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedgc.codes.matrix import MatrixCode
from fedgc.odds import odds_shares
from fedgc.validation import check_integer, check_straggle_prob


def optimal_row_sums(straggle_prob: ArrayLike, n_shards: int) -> NDArray[np.float64]:
    """Return the row sums that are optimal for aligned updates (the base paper's Theorem 1).

    Parameters
    ----------
    straggle_prob : array_like, shape (n_clients,)
        Probability in [0, 1) that each client misses the deadline.
    n_shards : int
        Number of shards m.

    Returns
    -------
    ndarray, shape (n_clients,)
        ``Y_i = m (1 / delta_i) / sum_l (1 / delta_l)`` with ``delta_i = p_i / (1 - p_i)``; if clients never straggle,
        they share all of m evenly.

    Examples
    --------
    >>> optimal_row_sums([0.5, 0.75], 4).tolist()
    [3.0, 1.0]
    """
    check_integer("number of probabilities in straggle_prob", np.size(np.asarray(straggle_prob)), low=1)
    check_integer("n_shards", n_shards, low=1)
    prob = check_straggle_prob(straggle_prob, np.size(np.asarray(straggle_prob)))
    shares, _ = odds_shares(prob, np.zeros(prob.size, dtype=np.intp), 1)
    return n_shards * shares


class CommonShard(MatrixCode):
    """Scheme I: every client holds shard 0, and every other shard has one owner.

    Parameters
    ----------
    straggle_prob : array_like, shape (n_clients,)
        Probability in [0, 1) that each client misses the deadline.
    n_shards : int
        Number of shards, at least n_clients. Client i owns an equal run of the shards 1 .. n_shards - 1; with
        n_shards = n_clients the last client owns none, as in the authors' code.

    Notes
    -----
    An owned shard has coefficient one, and the common shard takes what the client's row sum still lacks,
    ``Y_i - (number owned)``, which may be negative. Columns sum to one, so weights ``1 / (1 - p_i)`` are unbiased. The
    load is ``1 + (n_clients - 1) / n_shards``.

    References
    ----------
    H. Song, J. Choi, arXiv 2510.22539, Scheme I.

    Examples
    --------
    >>> CommonShard([0.5, 0.5, 0.75], 3).encoding_matrix.round(3)
    array([[0.286, 1.   , 0.   ],
           [0.286, 0.   , 1.   ],
           [0.429, 0.   , 0.   ]])
    """

    def __init__(self, straggle_prob: ArrayLike, n_shards: int) -> None:
        row_sums = optimal_row_sums(straggle_prob, n_shards)
        n_clients = row_sums.size
        check_integer("n_shards", n_shards, low=n_clients)
        owned = np.arange(1, n_shards)
        # n_shards - 1 shards over n_clients owners, the remainder to the first ones.
        owner = (owned - 1) % n_clients
        matrix = np.zeros((n_clients, n_shards))
        matrix[owner, owned] = 1.0
        matrix[:, 0] = row_sums - matrix.sum(axis=1)
        super().__init__(matrix)


class Chain(MatrixCode):
    """Scheme II: each client shares one shard with the next.

    Parameters
    ----------
    straggle_prob : array_like, shape (n_clients,)
        Probability in [0, 1) that each client misses the deadline. The number of shards is n_clients.

    Notes
    -----
    Client i holds the shards i and i + 1 (the last one only its own). From the first client on, each coefficient is
    what the column still lacks to one, or the row to Y_i. The load is ``2 - 1 / n_clients``.

    References
    ----------
    H. Song, J. Choi, arXiv 2510.22539, Scheme II.

    Examples
    --------
    >>> Chain([0.5, 0.5, 0.75]).encoding_matrix.round(3)
    array([[1.   , 0.286, 0.   ],
           [0.   , 0.714, 0.571],
           [0.   , 0.   , 0.429]])
    """

    def __init__(self, straggle_prob: ArrayLike) -> None:
        row_sums = optimal_row_sums(straggle_prob, np.size(np.asarray(straggle_prob)))
        n_clients = row_sums.size
        matrix = np.zeros((n_clients, n_clients))
        lacking = 1.0
        for client in range(n_clients):
            matrix[client, client] = lacking
            if client + 1 < n_clients:
                matrix[client, client + 1] = row_sums[client] - lacking
                lacking = 1.0 - matrix[client, client + 1]
        super().__init__(matrix)
