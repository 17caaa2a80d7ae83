"""The seconds of a round that do not depend on the load: waking up, transfer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedgc.completion_times.history import History
from fedgc.completion_times.sample import Vector

#: A client's fixed part is at most this share of the fastest round that it was seen in.
_LARGEST_SHARE = 0.95
#: A fixed part is not believed to better than this share of itself, nor the fleet to be more alike.
_RELATIVE_ERROR = 0.05
#: A spread between rounds is the fleet's as if that had been seen so often, and below so small a part of the fixed part
#: it is none. The law has so many values.
_FLEET_ROUNDS, _LEAST_SPREAD, _VALUES = 4.0, 0.01, 8
_TINY = float(np.finfo(np.float64).tiny)
#: A line through fewer rounds than this is not looked at.
_FEWEST = 4


@dataclass(frozen=True, eq=False)
class FixedPart:
    """Seconds that every client needs whatever its load.

    Attributes
    ----------
    seconds : ndarray, shape (n_clients,)
        The fixed part of each client.
    fleet : float
        The fixed part of a client that nothing is known of.
    likely : ndarray, shape (n_clients + 1, n_values)
        Values that it may have in a round, each as likely, and in the last row those of an unknown client; one value,
        its mean, where it hardly differs from round to round or is not reported.
    """

    seconds: Vector
    fleet: float
    likely: Vector


def fixed_part(history: History, weight: Vector) -> FixedPart:
    """Return the fixed parts: as reported, else from how time grows with the load, else the fleet's; shrunk to it.

    Parameters
    ----------
    history : History
        What was seen.
    weight : ndarray, shape (n_clients, window)
        Weight of each observation, 0 for unused cells.

    Notes
    -----
    The line is fitted as ``seconds / shards = fixed / shards + x``, since the error of x does not depend on the load
    while that of the seconds grows with it, by least squares reweighted with Cauchy's weights, because a slow round
    lies far off. Rounds cut off at a deadline are left out and so are, among large loads, the slow ones: the line is
    then somewhat too flat, and reporting `fixed_seconds` is better. Partial work must be left out altogether, since the
    shards done by a deadline are as many as take that long, and the line would find the deadline.
    """
    seen = (weight > 0.0) & ~history.censored
    reported = seen & np.isfinite(history.fixed_seconds)
    told = np.where(reported, weight, 0.0)
    n_told = told.sum(axis=1)
    mean = _ratio((told * np.where(reported, history.fixed_seconds, 0.0)).sum(axis=1), n_told)
    square = _ratio((told * np.where(reported, history.fixed_seconds - mean[:, None], 0.0) ** 2).sum(axis=1), n_told)
    variance = square / np.maximum(n_told, 1.0) + (_RELATIVE_ERROR * mean) ** 2
    slope, slope_variance = _line(history, np.where(seen & history.complete & ~reported, weight, 0.0))
    least = np.where(seen, history.seconds, np.inf).min(axis=1, initial=np.inf)
    most = _LARGEST_SHARE * np.where(np.isfinite(least), least, np.inf)
    use_line = (n_told == 0.0) & np.isfinite(slope_variance)
    known = use_line | (n_told > 0.0)
    value = np.where(use_line, np.clip(slope, 0.0, most), mean)
    error = np.where(use_line, slope_variance, variance)
    if not known.any():
        return FixedPart(np.zeros(history.n_clients), 0.0, np.zeros((history.n_clients + 1, 1)))
    fleet, spread = _fleet(value[known], error[known])
    with np.errstate(divide="ignore", invalid="ignore"):
        trust = np.where(known, spread / (spread + error), 0.0)
    trust = np.where(np.isfinite(trust), trust, 1.0)
    seconds = np.minimum(trust * np.where(known, value, 0.0) + (1.0 - trust) * fleet, most)
    deviation = np.where(reported & (mean > 0.0)[:, None], history.fixed_seconds, np.nan)
    deviation = deviation / np.where(mean > 0.0, mean, 1.0)[:, None] - 1.0
    return FixedPart(seconds, fleet, _likely(np.append(seconds, fleet), n_told, deviation))


def _likely(seconds: Vector, n_told: Vector, deviation: Vector) -> Vector:
    """Return values of each client's fixed part, from how far rounds were from its mean, relative to it.

    A client's spread is its own, shrunk to the fleet's; the law is that of all deviations in units of the spreads.
    """
    square = np.nan_to_num(deviation) ** 2
    count = np.isfinite(deviation).sum(axis=1)
    often = count > 1
    variance = np.where(often, square.sum(axis=1) / np.maximum(count - 1, 1), 0.0)
    fleet = float(count[often] @ variance[often] / count[often].sum()) if often.any() else 0.0
    if np.sqrt(fleet) < _LEAST_SPREAD:
        return seconds[:, None]
    weight = np.where(often, n_told, 0.0)
    spread = np.sqrt((weight * variance + _FLEET_ROUNDS * fleet) / (weight + _FLEET_ROUNDS))
    told = deviation[often] / spread[often, None]
    law = np.quantile(told[np.isfinite(told)], (np.arange(_VALUES) + 0.5) / _VALUES)
    apart = np.append(spread, np.sqrt(fleet))[:, None] * (law - law.mean())
    return np.asarray(seconds[:, None] * np.maximum(1.0 + apart, 0.0))


def _ratio(sums: Vector, count: Vector) -> Vector:
    return sums / np.where(count > 0.0, count, 1.0)


def _line(history: History, weight: Vector) -> tuple[Vector, Vector]:
    """Return slope and its variance of seconds / shards over 1 / shards, variance infinite where there is no line."""
    n_used = (weight > 0.0).sum(axis=1)
    slope, variance = np.zeros(history.n_clients), np.full(history.n_clients, np.inf)
    rows = np.flatnonzero(n_used >= _FEWEST)
    inverse, given = 1.0 / history.shards[rows], weight[rows]
    varied = np.where(given > 0.0, inverse, -np.inf).max(axis=1, initial=0.0) > 1.0000001 * np.where(
        given > 0.0, inverse, np.inf
    ).min(axis=1, initial=np.inf)
    rows, inverse, given = rows[varied], inverse[varied], given[varied]
    if not rows.size:
        return slope, variance
    # Relative to the client's own time, so that squares stay in range whatever the unit is.
    unit = _ratio((given * history.seconds[rows] * inverse).sum(axis=1), given.sum(axis=1))
    rate = history.seconds[rows] * inverse / unit[:, None]
    own: NDArray[np.float64] = given
    for _ in range(5):
        total = own.sum(axis=1)
        center, level = (own * inverse).sum(axis=1) / total, (own * rate).sum(axis=1) / total
        away = inverse - center[:, None]
        squares = np.maximum((own * away**2).sum(axis=1), 1e-12 * center**2)
        line = (own * away * rate).sum(axis=1) / squares
        residual = rate - level[:, None] - line[:, None] * away
        size = (given * np.abs(residual)).sum(axis=1) / given.sum(axis=1) + 1e-9
        own = given / (1.0 + (residual / (2.0 * size[:, None])) ** 2)
    left = np.maximum((own * residual**2).sum(axis=1) / total, size**2)
    slope[rows] = line * unit
    variance[rows] = left / squares * unit**2 + (_RELATIVE_ERROR * slope[rows]) ** 2
    return slope, variance


def _fleet(value: Vector, error: Vector) -> tuple[float, float]:
    """Return mean and variance over clients, the latter without the errors' part, by moments."""
    error = np.maximum(error, np.finfo(float).tiny)
    spread = 0.0
    for _ in range(10):
        share = 1.0 / (spread + error)
        share /= share.max()
        mean = float(share @ value / share.sum())
        # With weights 1 / (spread + error) the weighted squares have mean n - 1 at the right spread.
        excess = float((share**2 * ((value - mean) ** 2 - error)).sum() / (share**2).sum())
        spread = max(excess, (_RELATIVE_ERROR * mean) ** 2)
    return mean, spread
