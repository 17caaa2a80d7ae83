"""Tables with many rows of a few entries, column by column: to numpy each row is a reduction of its own."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

_T = TypeVar("_T", bound=np.generic)

#: So many entries numpy adds one after the other too, so that the sums are the same to the last bit.
_FEW = 7
#: Rows of so many entries are sorted by exchanges.
_FEW_TO_SORT = 4


def row_sums(table: NDArray[_T]) -> NDArray[_T]:
    """Return what ``table.sum(axis=-1)`` does.

    Examples
    --------
    >>> row_sums(np.array([[1, 2, 3], [4, 5, 6]])).tolist()
    [6, 15]
    """
    if not 0 < table.shape[-1] <= _FEW:
        return np.asarray(table.sum(axis=-1))
    total = table[..., 0].copy()
    for column in range(1, table.shape[-1]):
        np.add(total, table[..., column], out=total)
    return total


def any_in_rows(flags: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return what ``flags.any(axis=-1)`` does.

    Examples
    --------
    >>> any_in_rows(np.array([[False, True], [False, False]])).tolist()
    [True, False]
    """
    if not 0 < flags.shape[-1] <= _FEW:
        return np.asarray(flags.any(axis=-1))
    found = flags[..., 0].copy()
    for column in range(1, flags.shape[-1]):
        found |= flags[..., column]
    return found


def sorted_rows(table: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return what ``np.sort(table, axis=-1)`` does.

    Examples
    --------
    >>> sorted_rows(np.array([[3, 1, 2], [5, 4, 6]])).tolist()
    [[1, 2, 3], [4, 5, 6]]
    """
    n_columns = table.shape[-1]
    if n_columns > _FEW_TO_SORT:
        return np.sort(table, axis=-1)
    found = table.copy()
    for end in range(n_columns - 1, 0, -1):
        for column in range(end):
            one, other = found[..., column], found[..., column + 1]
            found[..., column], found[..., column + 1] = np.minimum(one, other), np.maximum(one, other)
    return found
