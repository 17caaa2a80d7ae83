"""ErasureHead's code: fractional repetition with blocks formed at random."""

from __future__ import annotations

import numpy as np

from fedgc.codes.fractional_repetition import FractionalRepetition
from fedgc.validation import check_integer


class ErasureHead(FractionalRepetition):
    """Fractional repetition in ``n_clients // load`` random blocks, blind to who is reliable.

    Its rule is to count every block once if any member came (decoder ``first-arrival``). Code that accompanies
    comparisons sums all arrivals instead, copies and all (decoder ``sum``).

    Parameters
    ----------
    n_clients : int
        Number of clients. If load does not divide it, some blocks have a member more.
    n_shards : int
        Number of shards, at least the number of blocks.
    load : int
        Copies of each shard, from 1 to n_clients.
    rng : numpy.random.Generator
        Forms the blocks.

    References
    ----------
    H. Wang, Z. Charles, D. Papailiopoulos, "ErasureHead: Distributed Gradient Descent without Delays Using Approximate
    Gradient Coding", 2019, arXiv 1901.09671.

    Examples
    --------
    >>> code = ErasureHead(4, 4, 2, rng=np.random.default_rng(0))
    >>> code.load, sorted(code.blocks.of_client.tolist())
    (2.0, [0, 0, 1, 1])
    """

    def __init__(self, n_clients: int, n_shards: int, load: int, *, rng: np.random.Generator) -> None:
        check_integer("n_clients", n_clients, low=1)
        n_blocks = n_clients // check_integer("load", load, low=1, high=n_clients)
        check_integer("n_shards", n_shards, low=n_blocks)
        super().__init__(rng.permutation(np.arange(n_clients) % n_blocks), np.arange(n_shards) * n_blocks // n_shards)
