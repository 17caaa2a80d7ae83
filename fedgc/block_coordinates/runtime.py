"""The runtime model: when all coordinates of the gradient can be decoded."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedgc.validation import check_integer

Vector = NDArray[np.float64]


def runtime(split: ArrayLike, times: ArrayLike) -> Vector:
    """Return the seconds until every block of coordinates can be decoded.

    Parameters
    ----------
    split : array_like, shape (n_clients,)
        Number of coordinates, whole or not, in block n = 1, ..., N: that with n copies, which n - 1 stragglers leave
        decodable. At least zero, and not all zero.
    times : array_like, shape (..., n_clients)
        Seconds that each client takes for one unit of work, one coordinate of one shard's gradient; infinite for a
        client that does not work at all.

    Returns
    -------
    ndarray, shape (...,)
        ``max_n T_(N+1-n) sum_(i<=n) i x_i`` with ``T_(1) <= ... <= T_(N)``, the maximum over blocks with coordinates.

    Raises
    ------
    ValueError
        If an entry of `split` is negative or not finite or all are zero, or a time is not above zero, or the numbers
        of clients differ.

    Notes
    -----
    There are N shards, and a coordinate with n copies is n units of work for every client. Clients work from the block
    with one copy on to that with N and send each block when it is done, so block n comes from a client after ``T
    sum_(i<=n) i x_i`` seconds, and can be decoded once the N + 1 - n fastest have sent it. The time to send is
    neglected, and a client is as slow with one block as with another.

    References
    ----------
    Q. Wang, Y. Cui, C. Li, J. Zou, H. Xiong, "Optimization-based Block Coordinate Gradient Coding for Mitigating
    Partial Stragglers in Distributed Learning", IEEE Trans. Signal Process. 2023, arXiv 2206.02450.

    Examples
    --------
    Two clients, the second three times as slow. Everything twice, everything once, and half of it each way:

    >>> [runtime(split, [1.0, 3.0]).item() for split in ([0, 8], [8, 0], [4, 4])]
    [16.0, 24.0, 12.0]
    """
    x = checked_split(split)
    t = np.asarray(times, dtype=np.float64)
    if t.ndim == 0 or t.shape[-1] != x.size:
        raise ValueError(f"times must have one entry per block in the last axis, {x.size}; got shape {t.shape}")
    # Negated, since nothing is true of NaN.
    if not (t > 0.0).all():
        raise ValueError(f"times must be above 0; got {t[~(t > 0.0)][0]:g}")
    filled = x > 0.0
    slowest_first = np.sort(t, axis=-1)[..., ::-1]
    ends: Vector = (slowest_first[..., filled] * work_until(x)[filled]).max(axis=-1)
    return ends


def work_until(split: Vector) -> Vector:
    """Return the units of work of a client until each block is done, ``sum_(i<=n) i x_i``, (n_clients,).

    Examples
    --------
    >>> work_until(np.array([4.0, 0.0, 2.0])).tolist()
    [4.0, 4.0, 10.0]
    """
    return np.cumsum(np.arange(1, split.size + 1) * split)


def checked_split(split: ArrayLike) -> Vector:
    """Return the split as a vector, or raise ValueError unless it is of at least zero everywhere and not all zero."""
    x = np.array(split, dtype=np.float64)
    if x.ndim != 1 or x.size == 0:
        raise ValueError(f"split must have one entry per client, in one dimension; got shape {x.shape}")
    if not (np.isfinite(x) & (x >= 0.0)).all() or not (x > 0.0).any():
        raise ValueError(f"split must be finite numbers of at least 0, not all 0; got {x.tolist()}")
    return x


def whole_coordinates(split: ArrayLike, n_coordinates: int) -> NDArray[np.intp]:
    """Round a split to whole coordinates that sum to `n_coordinates`, by largest remainders, ties to fewer copies.

    Parameters
    ----------
    split : array_like, shape (n_clients,)
        What the sizes of the blocks are to be in proportion to.
    n_coordinates : int
        Number of coordinates, L.

    Raises
    ------
    ValueError
        If the split is not a split, or there is no coordinate.

    Notes
    -----
    No block is off by a whole coordinate, so that the runtime changes by less than ``T_(N) N (N + 1) / 2`` seconds.

    Examples
    --------
    >>> whole_coordinates([0.5, 0.25, 0.25], 7).tolist()
    [3, 2, 2]
    """
    x = checked_split(split)
    total = check_integer("n_coordinates", n_coordinates, low=1)
    quota = x * (total / x.sum())
    sizes: NDArray[np.intp] = np.floor(quota + 1e-9).astype(np.intp)
    short = total - int(sizes.sum())
    sizes[np.argsort(sizes - quota, kind="stable")[:short]] += 1
    return sizes
