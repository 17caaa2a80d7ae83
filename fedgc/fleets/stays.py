"""The probability to be done in time and still there: an integral over the work time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fedgc.fleets.parameters import Vector

#: Nodes per piece: 1e-6 or better against adaptive quadrature, see tests/test_fleet_behaviour.py.
N_NODES = 14

# Quantiles run off to infinity at 0 and 1, so the nodes crowd there: u = x^3 (10 - 15 x + 6 x^2), x Gauss-Legendre.
_x, _w = np.polynomial.legendre.leggauss(N_NODES)
_x = (_x + 1.0) / 2.0
_NODES = _x**3 * (10.0 - 15.0 * _x + 6.0 * _x**2)
_WEIGHTS = _w / 2.0 * 30.0 * _x**2 * (1.0 - _x) ** 2

_BELOW_ONE = 1.0 - 2.0**-53


def done_and_there_prob(stay_prob_at: Callable[[Vector], Vector], low: Vector, high: Vector) -> Vector:
    """Return P(a client is done with its work, as its quantile u lies between two bounds, and stays until it is).

    Parameters
    ----------
    stay_prob_at : callable
        From u to the probability to stay for as many seconds as the work takes at its u-quantile; smooth between the
        bounds.
    low, high : ndarray
        Bounds of u, one pair per cell.

    Notes
    -----
    With Q the quantile function of the completion time and S the probability to stay, the answer is the integral of
    S(Q(u)) over u. Integrating over u and not over time keeps the nodes where the completion times are, even if these
    hardly vary. The alternative, closed forms for partial moments of the time, would have to be derived anew for every
    model, and does not exist for log-normal times and exponential up times.

    Examples
    --------
    >>> round(float(done_and_there_prob(lambda u: 1.0 - u / 2.0, np.zeros(1), np.ones(1))[0]), 8)
    0.75
    """
    width = high - low
    total: Vector = np.zeros_like(low)
    for node, weight in zip(_NODES, _WEIGHTS, strict=True):
        total += weight * stay_prob_at(np.minimum(low + node * width, _BELOW_ONE))
    return total * width
