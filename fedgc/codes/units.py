"""Codes over units of several shards: one column of the code stands for a run of consecutive shards."""

from __future__ import annotations

import numpy as np

from fedgc.codes.base import Code
from fedgc.codes.fractional_repetition import FractionalRepetition
from fedgc.codes.matrix import MatrixCode
from fedgc.validation import check_integer


def over_shards(code: Code, n_shards: int) -> Code:
    """Return a code over shards, made from one over fewer units.

    Parameters
    ----------
    code : Code
        A code of whole updates. Its column u stands for the shards ``u m / U`` (rounded down) up to the next unit's
        first, of m shards in all and U units.
    n_shards : int
        Number of shards, at least the number of units.

    Raises
    ------
    ValueError
        If there are fewer shards than units.

    Examples
    --------
    >>> over_shards(MatrixCode([[1, 0.5], [0, 0.5]]), 4).encoding_matrix
    array([[1. , 1. , 0.5, 0.5],
           [0. , 0. , 0.5, 0.5]])
    """
    check_integer("n_shards", n_shards, low=code.n_shards)
    if code.n_shards == n_shards:
        return code
    unit = ((np.arange(n_shards) + 1) * code.n_shards - 1) // n_shards
    if code.blocks is not None:
        return FractionalRepetition(code.blocks.of_client, code.blocks.of_shard[unit])
    return MatrixCode(code.sparse_matrix[:, unit], allow_unheld=True)
