"""Shifts of behaviour: how far recent rounds have moved a client from its long memory, before an alarm is certain."""

from __future__ import annotations

import numpy as np
from scipy.special import expit, logit, ndtr, ndtri

from fedgc.reliability.counts import Vector

#: Log odds by which a client's probability to miss may have moved. Eight of 1 to 4 find changes no sooner. One up and
#: one down find them as soon, but 0.9 to 0.5 is learnt to 0.7 instead of 0.8 within 20 rounds then.
SHIFTS = (2.0, 3.0, -1.5, -4.0)
#: Probability per round that each of them starts, 1 in 500 together. With twice as much, 0.5 to 0.1 is learnt to 0.49
#: instead of 0.39 within 10 rounds, and the mean square error of steady clients in the paper's fleet is 22 % larger.
_STARTS = np.array([0.0003, 0.0006, 0.00035, 0.0008])
#: Probability per round that a shift ends. Behaviour need not go back for this: the long memory takes the new one up,
#: and the shift between them shrinks.
_END = 0.02
_FACTORS = np.exp(np.array(SHIFTS))
#: Halvings of the bracket that hold a limit; 7 on the logit scale become 1e-11.
_HALVINGS = 40


def shifted(mean: Vector) -> Vector:
    """Return the probability to miss after each of the shifts, ``expit(logit(mean) + shift)``.

    Parameters
    ----------
    mean : ndarray, shape (n_clients,)
        Probability to miss that the long memory says, in (0, 1).

    Returns
    -------
    ndarray, shape (n_clients, 4)

    Examples
    --------
    >>> shifted(np.array([0.5, 0.1])).round(2).tolist()
    [[0.88, 0.95, 0.18, 0.02], [0.45, 0.69, 0.02, 0.0]]
    """
    # As odds: the logit of a mean near 1 would be infinite.
    moved = mean[:, None] * _FACTORS
    return np.asarray(moved / (1.0 - mean[:, None] + moved))


def filter_shifts(shift: Vector, mean: Vector, missed: Vector) -> Vector:
    """Return the probability of each shift after one more outcome.

    Parameters
    ----------
    shift : ndarray, shape (n_clients, 4)
        Probability of each shift before the round; what is missing to 1 is that of none.
    mean : ndarray, shape (n_clients,)
        Probability to miss that the long memory gave before the outcome.
    missed : ndarray, shape (n_clients,)
        1 for a miss, 0 for an arrival. A number in between was not seen: the probabilities stay.

    Notes
    -----
    Bayes' rule for a hidden Markov chain of five states: none, from which each shift starts with a small probability
    per round, and the shifts, which end.

    In the mean over clients, half of the way to a new probability q is believed within 10 rounds if these are expected
    to tell it from the old one p by 5 nats, ``10 KL(q, p) >= 5``: 0.1 to 0.5, 0.9 to 0.5, 0.6 to 0.05 and what is
    further. Changes of 3 to 5 nats, as 0.5 to 0.1 and 0.3 to 0.7, take up to 20 rounds, and smaller ones longer. From
    0.5 to 0.2, of 1.9 nats, no estimator can be half-way after 10 rounds at the steady error of this one, root mean
    square 0.027 in a fleet of such clients: it would have at least 0.032 on clients that stay at 0.5, even if it knew
    that they were there so far. For by Cauchy and Schwarz ``E_q g <= (E_p g^2 E_p L^2)^(1/2)``, where g is how far the
    estimate moves and L the likelihood ratio of the 10 rounds, ``E_p L^2 = (q^2 / p + (1 - q)^2 / (1 - p))^10``.

    References
    ----------
    J. D. Hamilton, A New Approach to the Economic Analysis of Nonstationary Time Series and the Business Cycle,
    Econometrica 57 (1989).

    Examples
    --------
    >>> shift, mean = np.zeros((1, 4)), np.array([0.1])
    >>> for _ in range(4):
    ...     shift = filter_shifts(shift, mean, np.ones(1))
    >>> shift.round(2).tolist()
    [[0.03, 0.17, 0.0, 0.0]]
    """
    seen = (missed == 0.0) | (missed == 1.0)
    likely, steady = shifted(mean), mean
    likely, steady = np.where((missed == 1.0)[:, None], likely, 1.0 - likely), np.where(missed == 1.0, mean, 1.0 - mean)
    joint = shift * likely
    none = (1.0 - shift.sum(axis=1)) * steady
    total = none + joint.sum(axis=1)
    after = (1.0 - _END) * joint / total[:, None] + (none / total)[:, None] * _STARTS
    return np.where(seen[:, None], after, shift)


def believed(shift: Vector, mean: Vector) -> Vector:
    """Return the probability to miss, (n_clients,), given that of each shift and what the long memory says.

    Examples
    --------
    >>> believed(np.array([[0.5, 0.0, 0.0, 0.0]]), np.array([0.5])).round(3).tolist()
    [0.69]
    """
    return np.asarray((1.0 - shift.sum(axis=1)) * mean + (shift * shifted(mean)).sum(axis=1))


def widen(shift: Vector, low: Vector, high: Vector, level: float) -> tuple[Vector, Vector]:
    """Return the limits of the credible interval given the probability of each shift.

    Parameters
    ----------
    shift : ndarray, shape (n_clients, 4)
        Probability of each shift.
    low, high : ndarray, shape (n_clients,)
        Limits of the long memory's interval, in (0, 1).
    level : float
        Probability that they are to hold between them, in (0, 1).

    Notes
    -----
    Quantiles of the mixture of the five states, each of which is the long memory's posterior moved by a shift. That is
    taken for normal on the logit scale, with the same limits. To match a Beta distribution to the mixture's variance
    instead, as rare and large shifts make it, covers 97 to 99 % of the steady clients at a level of 90 %.

    Examples
    --------
    >>> low, high = widen(np.array([[0.0] * 4, [0.5, 0.0, 0.0, 0.0]]), np.full(2, 0.1), np.full(2, 0.3), 0.9)
    >>> low.round(3).tolist(), high.round(3).tolist()
    ([0.1, 0.114], [0.3, 0.732])
    """
    limits = logit(low), logit(high)
    normal = -ndtri((1.0 - level) / 2.0)
    # A level near 0 leaves no width to learn the spread from.
    spread = np.maximum((limits[1] - limits[0]) / (2.0 * normal), 1e-9)
    states = [1.0 - shift.sum(axis=1), *shift.T]
    moves = [move / spread for move in (0.0, *SHIFTS)]
    result = []
    for limit, sign in zip(limits, (-1.0, 1.0), strict=True):
        # In standard deviations from the middle of the long memory's posterior.
        below, above = sign * normal + min(SHIFTS) / spread, sign * normal + max(SHIFTS) / spread
        tail = ndtr(sign * normal)
        for _ in range(_HALVINGS):
            half = (below + above) / 2.0
            share = sum(state * ndtr(half - move) for state, move in zip(states, moves, strict=True))
            below, above = np.where(share < tail, half, below), np.where(share < tail, above, half)
        result.append(expit(limit + spread * ((below + above) / 2.0 - sign * normal)))
    return result[0], result[1]
