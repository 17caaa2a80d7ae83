"""Expectations of ``1 / (1 + X)`` over independent blocks, as sums over a few nodes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

#: Spacing in u: with 0.25 and less, only rounding is left for X from 0 to `largest`, up to 1e16.
_STEP = 0.22
#: Below this u a node weighs less than 1e-16.
_FIRST = -3.8


def exponential_nodes(largest: float) -> tuple[Vector, Vector]:
    """Return nodes s and weights with ``sum(weight * exp(-s (1 + X))) = 1 / (1 + X)`` for 0 <= X <= `largest`.

    Notes
    -----
    ``1 / (1 + X)`` is the integral of ``exp(-s (1 + X))`` over s > 0. Where X is a sum over independent blocks, the
    exponential is a product, so that its expectation over exponentially many states costs one product per node. With
    ``s = exp(u - e^-u) / (1 + largest)`` and equal steps in u the rule is double-exponential: exact to rounding however
    far the terms of X are spread. The number of nodes grows with log(largest). Scaled by the mean of X it would need
    a few nodes less, but miss the rare X that is far above the mean, where the steps in log s become long.

    Examples
    --------
    >>> s, weight = exponential_nodes(3.0)
    >>> bool(abs(weight @ np.exp(-s * (1 + 3.0)) - 0.25) < 1e-14)
    True
    """
    scale = 1.0 + largest
    last = float(np.log(80.0 * scale)) + 1.0
    u = np.linspace(_FIRST, last, int(np.ceil((last - _FIRST) / _STEP)) + 1)
    s = np.exp(u - np.exp(-u)) / scale
    return s, (u[1] - u[0]) * s * (1.0 + np.exp(-u))
