"""Stochastic gradient coding: every shard on a few random clients, pairs of shards sharing holders evenly."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from fedgc.codes.matrix import MatrixCode
from fedgc.validation import check_integer


class StochasticGradientCode(MatrixCode):
    """Every shard on `load` distinct clients, balanced over clients, each copy with coefficient ``1 / load``.

    Parameters
    ----------
    n_clients, n_shards : int
        Numbers of clients and shards.
    load : int
        Copies of each shard, from 1 to n_clients.
    rng : numpy.random.Generator
        Draws the holders.

    Notes
    -----
    Bitar et al. ask for pairwise balance: any two shards share about ``load^2 / n_clients`` holders. Here the holders
    of the shards are taken `load` at a time from random permutations of the clients, which keeps numbers of shards per
    client within one of each other and the overlap of two shards at its random mean. Where a shard would get a client
    twice, because it straddles two permutations, the second copy is swapped with a later one.

    References
    ----------
    R. Bitar, M. Wootters, S. El Rouayheb, "Stochastic Gradient Coding for Straggler Mitigation in Distributed
    Learning", IEEE J. Sel. Areas Inf. Theory 1(1), 2020.

    Examples
    --------
    >>> code = StochasticGradientCode(4, 6, 2, rng=np.random.default_rng(0))
    >>> code.load, code.encoding_matrix.sum(axis=0).tolist()
    (2.0, [1.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    """

    def __init__(self, n_clients: int, n_shards: int, load: int, *, rng: np.random.Generator) -> None:
        check_integer("n_clients", n_clients, low=1)
        check_integer("n_shards", n_shards, low=1)
        check_integer("load", load, low=1, high=n_clients)
        holders: list[list[int]] = []
        queue: list[int] = []
        for _ in range(n_shards):
            chosen: list[int] = []
            while len(chosen) < load:
                if all(client in chosen for client in queue):
                    queue += rng.permutation(n_clients).tolist()
                position = next(i for i, client in enumerate(queue) if client not in chosen)
                chosen.append(queue.pop(position))
            holders.append(chosen)
        shard = np.repeat(np.arange(n_shards), load)
        client = np.array(holders).ravel()
        coefficient = np.full(shard.size, 1.0 / load)
        super().__init__(sparse.csr_array((coefficient, (client, shard)), shape=(n_clients, n_shards)))


class StochasticGradientCodeAuthors(MatrixCode):
    """The variant in the base paper's comparison code: the number of copies of each shard is itself random.

    Shard j is on ``d_j`` random clients with d_j uniform on 0 .. 2 load; shards with ``d_j = 0`` (a fifth of them at
    load 2) are lost for good, so this code has no unbiased decoder.

    Parameters
    ----------
    n_clients, n_shards, load, rng
        As for :class:`StochasticGradientCode`; d_j is capped at n_clients.
    """

    def __init__(self, n_clients: int, n_shards: int, load: int, *, rng: np.random.Generator) -> None:
        check_integer("n_clients", n_clients, low=1)
        check_integer("n_shards", n_shards, low=1)
        check_integer("load", load, low=1, high=n_clients)
        matrix = np.zeros((n_clients, n_shards))
        for shard in range(n_shards):
            copies = min(int(rng.integers(0, 2 * load + 1)), n_clients)
            matrix[rng.choice(n_clients, copies, replace=False), shard] = 1.0 / max(copies, 1)
        super().__init__(matrix, allow_unheld=True)
