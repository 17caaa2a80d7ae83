"""No code: every shard has one holder."""

from __future__ import annotations

import numpy as np

from fedgc.codes.fractional_repetition import FractionalRepetition
from fedgc.validation import check_integer


class Uncoded(FractionalRepetition):
    """Every client computes its own run of consecutive shards, as in plain federated averaging.

    Parameters
    ----------
    n_clients : int
        Number of clients, each a block of its own.
    n_shards : int
        Number of shards, at least n_clients.

    Examples
    --------
    >>> Uncoded(2, 4).encoding_matrix.astype(int)
    array([[1, 1, 0, 0],
           [0, 0, 1, 1]])
    """

    def __init__(self, n_clients: int, n_shards: int) -> None:
        check_integer("n_clients", n_clients, low=1)
        check_integer("n_shards", n_shards, low=n_clients)
        super().__init__(np.arange(n_clients), np.arange(n_shards) * n_clients // n_shards)
