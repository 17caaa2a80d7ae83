"""Project onto what arrived: the span of the received rows, in an inner product with very unequal energies."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: Entries below this, relative to the largest coefficient, are what elimination leaves of a zero.
_ZERO = 1e-11


class RowSpace(NamedTuple):
    """A basis of the row space: ``reduced[j]`` is one at its pivot shard j and zero at the other pivots.

    Attributes
    ----------
    pivot : ndarray of bool, shape (..., m)
        Shards that are pivots.
    reduced : ndarray, shape (..., m, m)
        Row j of the basis at row j, for pivots; zero rows otherwise.
    """

    pivot: NDArray[np.bool_]
    reduced: Array


class Projection(NamedTuple):
    """Projection ``P = B D`` onto the row space of A, with ``B = A'(A D A')^+ A``.

    Attributes
    ----------
    onto, off : ndarray, shape (..., m, m)
        P and I - P, neither computed as the difference of the other.
    z : ndarray, shape (..., m)
        ``B r``.
    missed : ndarray, shape (..., m)
        ``(I - P)' r``: the coherent mass that did not arrive, shard by shard.
    x : ndarray, shape (...)
        ``r' B r``.
    """

    onto: Array
    off: Array
    z: Array
    missed: Array
    x: Array


def row_space(rows: Array, energy: Array) -> RowSpace:
    """Return the reduced basis of the span of `rows`, (..., k, m), with pivots where the energy, (..., m), is largest.

    Notes
    -----
    Gauss-Jordan elimination with complete pivoting on ``rows * sqrt(energy)``. On rows of zeros and ones it is exact,
    and the pivots keep what follows well conditioned: no entry of the scaled basis is much above one, however far
    the energies are spread. A singular value decomposition of the scaled rows would lose shards of small energy.
    """
    batch, (k, m) = rows.shape[:-2], rows.shape[-2:]
    work = rows.reshape(-1, k, m).copy()
    n = work.shape[0]
    root = np.sqrt(energy).reshape(n, m)
    floor = _ZERO * np.abs(work).max(axis=(1, 2), initial=0.0)
    free_row, free_column = np.ones((n, k), dtype=np.bool_), np.ones((n, m), dtype=np.bool_)
    chosen: list[tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]] = []
    for _ in range(min(k, m)):
        size = np.abs(work)
        open_ = free_row[:, :, None] & free_column[:, None, :] & (size > floor[:, None, None])
        size = np.where(open_, size * root[:, None, :], 0.0).reshape(n, k * m)
        best = size.argmax(axis=1)
        live = np.flatnonzero(size[np.arange(n), best] > 0.0)
        if live.size == 0:
            break
        row, column = np.divmod(best[live], m)
        line = work[live, row] / work[live, row, column][:, None]
        line[np.arange(live.size), column] = 1.0
        cleared = work[live] - work[live, :, column][:, :, None] * line[:, None, :]
        cleared[np.arange(live.size), :, column] = 0.0
        cleared[np.arange(live.size), row] = line
        work[live] = np.where(np.abs(cleared) > floor[live][:, None, None], cleared, 0.0)
        free_row[live, row] = False
        free_column[live, column] = False
        chosen.append((live, row, column))
    reduced = np.zeros((n, m, m))
    for live, row, column in chosen:
        reduced[live, column] = work[live, row]
    return RowSpace(~free_column.reshape(*batch, m), reduced.reshape(*batch, m, m))


def project_single(arrived: NDArray[np.bool_], energy: Array, coherent: Array) -> Projection:
    """Return the projection where every super-shard has arrived by itself or not at all, ``arrived`` of shape (..., m).

    What :func:`project` gives for unit rows; matrices are returned as their diagonals, (..., m).
    """
    length = coherent / energy
    return Projection(
        arrived.astype(np.float64),
        (~arrived).astype(np.float64),
        np.where(arrived, length, 0.0),
        np.where(arrived, 0.0, coherent),
        np.where(arrived, coherent * length, 0.0).sum(axis=-1),
    )


def project(rows: Array, energy: Array, coherent: Array) -> Projection:
    """Return the projection onto the span of `rows`, (..., k, m), for energies d and coherent parts r, (..., m).

    Notes
    -----
    With ``S = diag(sqrt(d))``, pivots first, the scaled basis is ``[I H]``. The projection is
    ``S^-1 [I H]'(I + H H')^-1 [I H] S`` and its complement ``S^-1 [-H' I]'(I + H' H)^-1 [-H' I] S``: both are sums of
    squares, so that a shard that arrived in full misses exactly nothing.
    """
    pivot, reduced = row_space(rows, energy)
    m = energy.shape[-1]
    root = np.sqrt(energy)
    eye = np.eye(m)
    on_pivot = eye * pivot[..., None]
    h = np.where(pivot[..., :, None] & ~pivot[..., None, :], reduced * root[..., None, :] / root[..., :, None], 0.0)
    basis, complement = on_pivot + h, eye - on_pivot - h
    transposed = np.swapaxes(h, -1, -2)
    onto = np.swapaxes(basis, -1, -2) @ np.linalg.solve(eye + h @ transposed, basis)
    off = complement @ np.linalg.solve(eye + transposed @ h, np.swapaxes(complement, -1, -2))
    scaled = coherent / root
    arrived = np.einsum("...ij,...j->...i", onto, scaled)
    return Projection(
        onto * root[..., None, :] / root[..., :, None],
        off * root[..., None, :] / root[..., :, None],
        arrived / root,
        np.einsum("...ij,...j->...i", off, scaled) * root,
        np.einsum("...i,...i->...", arrived, arrived),
    )
