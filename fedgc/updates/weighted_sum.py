"""Weighted sums of many large arrays, each read from memory once: where a server's time goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

#: Bytes of an array that are worked on at once: what is made of them stays in the processor's cache.
_AT_ONCE = 1 << 18

#: Arrays whose differences are held at once, and entries of them that are multiplied at once. BLAS starts threads for
#: anything larger, which on busy processors wait for one another longer than the product takes.
_GROUP, _PRODUCT = 8, 1 << 10


def add_weighted(
    totals: Sequence[Array], weights: NDArray[np.float64], news: Sequence[Array], olds: Sequence[Array | None]
) -> None:
    """Add ``sum_k weights[i, k] * (news[k] - olds[k])`` to ``totals[i]`` in place, for each i.

    Parameters
    ----------
    totals : sequence of ndarray, shape (n_entries,) each
        The sums, of one floating type, in which everything is worked out.
    weights : ndarray, shape (n_totals, n_arrays)
        The weights.
    news, olds : sequence of ndarray, shape (n_entries,) each
        Arrays of any number types; None in place of an old one counts as zero.

    Notes
    -----
    Differences are formed before they are summed, so that small changes of large numbers keep their digits. NaN and
    infinity anywhere show in the sums, also where the weight is zero. An overflow is for the caller to find.

    Examples
    --------
    >>> total = np.zeros(2)
    >>> add_weighted([total], np.array([[2.0, 1.0]]), [np.array([3.0, 4.0]), np.ones(2)], [np.ones(2), None])
    >>> total.tolist()
    [5.0, 7.0]
    """
    if not totals or not news or not totals[0].size:
        return
    kind, size = totals[0].dtype, totals[0].size
    factors = np.asarray(weights, dtype=kind)
    step = min(_AT_ONCE // kind.itemsize, size)
    with np.errstate(over="ignore", invalid="ignore"):
        if len(totals) == len(news) == 1 and step == size and olds[0] is None and factors[0, 0] != 0.0:
            # What follows comes to the same, but takes longer to set up than a small model takes to add.
            totals[0][...] += np.multiply(news[0].astype(kind, copy=False), factors[0, 0])
            return
        differences, scaled = np.empty((min(_GROUP, len(news)), step), kind), np.empty(step, kind)
        for start in range(0, size, step):
            part = slice(start, min(start + step, size))
            for first in range(0, len(news), _GROUP):
                group = range(first, min(first + _GROUP, len(news)))
                some = differences[: len(group), : part.stop - start]
                for difference, k in zip(some, group, strict=True):
                    old = olds[k]
                    if old is None:
                        difference[...] = news[k][part]
                    else:
                        np.subtract(news[k][part], old[part], out=difference, dtype=kind)
                for total, factor in zip(totals, factors[:, first : group.stop], strict=True):
                    total[part] += _product(factor, some, scaled[: part.stop - start])
                    if not factor.all():  # BLAS may pass over such rows
                        total[part] += kind.type(0.0) * some[factor == 0.0].sum(axis=0)


def _product(factor: Array, rows: Array, out: Array) -> Array:
    """Return ``factor @ rows``, written to `out`, in products so small that BLAS does them in this thread."""
    if len(rows) == 1:
        np.multiply(rows[0], factor[0], out=out)
        return out
    whole = out.size // _PRODUCT * _PRODUCT
    blocks = rows[:, :whole].reshape(len(rows), -1, _PRODUCT).transpose(1, 0, 2)
    np.matmul(factor, blocks, out=out[:whole].reshape(-1, _PRODUCT))
    np.matmul(factor, rows[:, whole:], out=out[whole:])
    return out


def squared_length(array: Array) -> float:
    """Return the sum of squares of an array, in its type; not finite if an entry is not, or by overflow.

    One pass without a temporary and without BLAS's threads: several times faster than asking of every entry.

    Examples
    --------
    >>> squared_length(np.array([3.0, -4.0])), squared_length(np.array([np.nan, 1.0]))
    (25.0, nan)
    """
    flat = array.reshape(-1)
    if flat.dtype not in (np.float32, np.float64):
        flat = flat.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        if flat.size < _PRODUCT:
            return float(flat @ flat)
        rows = flat[: flat.size // _PRODUCT * _PRODUCT].reshape(-1, _PRODUCT)
        rest = flat[rows.size :]
        return float(np.vecdot(rows, rows).sum(dtype=np.float64) + rest @ rest)
