"""Splits in closed form: as if the n-th fastest client always took the same time."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedgc.validation import check_positive

Vector = NDArray[np.float64]


def equalising_split(order_times: ArrayLike, n_coordinates: float) -> Vector:
    """Return the split that is optimal if the n-th fastest client takes ``order_times[n - 1]`` for sure.

    Parameters
    ----------
    order_times : array_like, shape (n_clients,)
        Times ``t_1 <= ... <= t_N`` of the fastest to the slowest client, above zero. ``E[T_(n)]`` and ``1 / E[1 /
        T_(n)]`` are the two choices of the paper, see :class:`fedgc.block_coordinates.ShiftedExponentialTimes`.
    n_coordinates : float
        Number of coordinates, L.

    Returns
    -------
    ndarray, shape (n_clients,)
        Coordinates with n = 1, ..., N copies, not whole: ``x_1 = m / t_N`` and ``x_n = (m / n) (1 / t_(N+1-n) - 1 /
        t_(N+2-n))``, with m such that they sum to L.

    Raises
    ------
    ValueError
        If the times do not rise from above zero, or there is no coordinate.

    Notes
    -----
    Let ``S_n = sum_(i<=n) i x_i``. Then ``sum_n x_n = sum_(n<N) S_n / (n (n + 1)) + S_N / N``, which rises with every
    S_n, and a runtime of m allows ``S_n <= m / t_(N+1-n)``. All blocks are therefore done at once in the optimum,
    ``S_n = m / t_(N+1-n)``, which rises with n as it must.

    The maximum in the runtime is convex in the times. With ``t_n = E[T_(n)]``, m is by Jensen's inequality below the
    mean runtime of every split.

    References
    ----------
    Q. Wang, Y. Cui, C. Li, J. Zou, H. Xiong, arXiv 2206.02450.

    Examples
    --------
    >>> from fedgc.block_coordinates import runtime
    >>> split = equalising_split([1.0, 3.0], 8)
    >>> split.round(9).tolist(), runtime(split, [1.0, 3.0]).round(9).item()
    ([4.0, 4.0], 12.0)
    """
    t = np.array(order_times, dtype=np.float64)
    if t.ndim != 1 or t.size == 0 or not (np.isfinite(t).all() and t[0] > 0.0 and (np.diff(t) >= 0.0).all()):
        raise ValueError(f"order_times must be finite, above 0, and rise from the fastest on; got {t.tolist()}")
    total = check_positive("n_coordinates", n_coordinates)
    speed = 1.0 / t[::-1]
    split = np.diff(speed, prepend=0.0) / np.arange(1, t.size + 1)
    return np.asarray(total / split.sum() * split)
