"""The base paper's two codes, whose coefficients follow the straggle probabilities (Theorem 1)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedgc.codes.matrix import MatrixCode
from fedgc.odds import odds_shares
from fedgc.validation import check_integer, check_straggle_prob, check_variance_factor


def optimal_row_sums(straggle_prob: ArrayLike, n_shards: int, variance_factor: ArrayLike = 0.0) -> NDArray[np.float64]:
    """Return the row sums that are optimal for aligned updates (the base paper's Theorem 1).

    Parameters
    ----------
    straggle_prob : array_like, shape (n_clients,)
        Probability in [0, 1) that each client misses the deadline.
    n_shards : int
        Number of shards m.
    variance_factor : float or array_like, shape (n_clients,)
        Of the quantised updates, omega_i with ``E|Q(x) - x|^2 = omega_i |x|^2``; zero where they are sent as they are,
        infinite where nothing is sent.

    Returns
    -------
    ndarray, shape (n_clients,)
        ``Y_i = m (1 / delta_i) / sum_l (1 / delta_l)`` with ``delta_i = (p_i + omega_i) / (1 - p_i)``; if clients have
        delta_i = 0, they share all of m evenly.

    Raises
    ------
    ValueError
        If sizes do not match, a probability lies outside [0, 1), a factor is negative, or all are infinite.

    Notes
    -----
    With weights ``1 / q_i`` for q_i = 1 - p_i, what comes of client i has the variance
    ``Y_i^2 ((1 + omega_i) / q_i - 1) = Y_i^2 (p_i + omega_i) / q_i``; their sum is least, for row sums that add up to
    m, where ``Y_i`` is in proportion to ``q_i / (p_i + omega_i)``.

    References
    ----------
    H. Song, J. Choi, arXiv 2510.22539, and, with quantised updates, arXiv 2605.15890.

    Examples
    --------
    >>> optimal_row_sums([0.5, 0.75], 4).tolist()
    [3.0, 1.0]
    >>> optimal_row_sums([0.5, 0.5], 4, [0.5, 1.0]).round(12).tolist()
    [2.4, 1.6]
    """
    check_integer("number of probabilities in straggle_prob", np.size(np.asarray(straggle_prob)), low=1)
    check_integer("n_shards", n_shards, low=1)
    prob = check_straggle_prob(straggle_prob, np.size(np.asarray(straggle_prob)))
    omega = check_variance_factor(variance_factor, prob.size)
    sends = np.isfinite(omega)
    # Quantisation counts as straggling would: this probability has the odds (p + omega) / (1 - p) of missing.
    alike = (prob[sends] + omega[sends]) / (1.0 + omega[sends])
    shares = np.zeros(prob.size)
    shares[sends], _ = odds_shares(alike, np.zeros(alike.size, dtype=np.intp), 1)
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
    variance_factor : float or array_like, shape (n_clients,)
        Of the quantised updates, see :func:`optimal_row_sums`. Clients whose factor is infinite hold nothing.

    Notes
    -----
    With variance factors this is the star of communication-efficient approximate gradient coding.

    An owned shard has coefficient one, and the common shard takes what the client's row sum still lacks,
    ``Y_i - (number owned)``, which may be negative. Columns sum to one, so weights ``1 / (1 - p_i)`` are unbiased. The
    load is ``1 + (n_clients - 1) / n_shards``.

    References
    ----------
    H. Song, J. Choi, arXiv 2510.22539, Scheme I; with quantised updates arXiv 2605.15890.

    Examples
    --------
    >>> CommonShard([0.5, 0.5, 0.75], 3).encoding_matrix.round(3)
    array([[0.286, 1.   , 0.   ],
           [0.286, 0.   , 1.   ],
           [0.429, 0.   , 0.   ]])
    """

    def __init__(self, straggle_prob: ArrayLike, n_shards: int, variance_factor: ArrayLike = 0.0) -> None:
        row_sums = optimal_row_sums(straggle_prob, n_shards, variance_factor)
        n_clients = row_sums.size
        check_integer("n_shards", n_shards, low=n_clients)
        owned = np.arange(1, n_shards)
        # n_shards - 1 shards over those who send, the remainder to the first ones.
        owners = np.flatnonzero(np.isfinite(check_variance_factor(variance_factor, n_clients)))
        owner = owners[(owned - 1) % owners.size]
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
