"""Persistent stragglers: how much likelier a client misses that has just missed, and what that is worth knowing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from fedgc.reliability.counts import AFTER_ARRIVAL, AFTER_MISS, AFTER_UNKNOWN, Counts
from fedgc.reliability.fleet_prior import BetaPrior

Vector = NDArray[np.float64]

#: Pairs of rounds, as many for persistence as against, that hold the log odds ratio near 0 while data is scarce.
_PAIRS = 1.0
_LARGEST_LOG_ODDS_RATIO = 6.0


@dataclass(frozen=True)
class Borrowing:
    """How the rounds after one outcome count as evidence on the rounds after the other.

    Attributes
    ----------
    weight : float
        What a round after the other outcome is worth, in [0, 1].
    shifted : bool
        Whether its miss fraction is moved by the fleet's log odds ratio first.
    prior_weight : float
        Share of this model in the mixture before any outcome has been seen.
    """

    weight: float
    shifted: bool
    prior_weight: float

    @property
    def unconditional(self) -> bool:
        """Whether the last outcome makes no difference."""
        return self.weight == 1.0 and not self.shifted


UNCONDITIONAL = Borrowing(1.0, shifted=False, prior_weight=0.5)
#: Unconditional first, with half the share: fleets without persistence must not pay for the possibility.
CONDITIONAL = (
    UNCONDITIONAL,
    Borrowing(1.0, shifted=True, prior_weight=0.2),
    Borrowing(0.3, shifted=True, prior_weight=0.15),
    Borrowing(0.0, shifted=True, prior_weight=0.15),
)


def log_odds_ratio(counts: Counts) -> float:
    """Return the fleet's log odds ratio of a miss after a miss against a miss after an arrival.

    Parameters
    ----------
    counts : Counts
        Discounted counts of all clients.

    Returns
    -------
    float
        In [-6, 6]; 0 if there is no evidence.

    Notes
    -----
    The Mantel-Haenszel estimate, each client being a stratum: with x_uv the discounted number of a client's rounds in
    which v followed u (m a miss, a an arrival) and N their sum,
    ``theta = log [(sum x_mm x_aa / N + 1) / (sum (x_ma x_am - alternations) / N + 1)]``.
    Pooling the rounds of all clients instead would mistake a fleet of different clients for a persistent one. Without
    the alternations the estimate would be too low in short histories, and minus infinity in histories of three rounds:
    miss-arrival-miss holds both an x_ma and an x_am, while no three outcomes hold both an x_mm and an x_aa. What is
    left are products of transitions without a common round. Those of both kinds have the same probability,
    ``E p^2 (1 - p)^2``, in histories that are exchangeable, whatever their length and whatever the discount.

    References
    ----------
    N. Mantel and W. Haenszel, JNCI 22 (1959). The bias in short histories is that of J. B. Miller and A. Sanjurjo,
    Surprised by the Hot Hand Fallacy, Econometrica 86 (2018).

    Examples
    --------
    >>> log_odds_ratio(Counts.empty(2))
    0.0
    """
    same, turns = transition_pairs(counts)
    total = counts.rounds[:, AFTER_ARRIVAL] + counts.rounds[:, AFTER_MISS]
    per_round = np.divide(1.0, total, out=np.zeros_like(total), where=total > 0.0)
    theta = np.log((max(float(same @ per_round), 0.0) + _PAIRS) / (max(float(turns @ per_round), 0.0) + _PAIRS))
    return float(np.clip(theta, -_LARGEST_LOG_ODDS_RATIO, _LARGEST_LOG_ODDS_RATIO))


def transition_pairs(counts: Counts) -> tuple[Vector, Vector]:
    """Return each client's pairs of transitions for persistence, ``x_mm x_aa``, and against, (n_clients,) each.

    The latter are ``x_ma x_am`` without the pairs that share a round; see :func:`log_odds_ratio`.
    """
    after_arrival, after_miss = counts.rounds[:, AFTER_ARRIVAL], counts.rounds[:, AFTER_MISS]
    missed_again, missed_anew = counts.misses[:, AFTER_MISS], counts.misses[:, AFTER_ARRIVAL]
    return (
        missed_again * (after_arrival - missed_anew),
        (after_miss - missed_again) * missed_anew - counts.alternations,
    )


def evidence(
    counts: Counts, outcome: NDArray[np.intp], borrowing: Borrowing, theta: float, priors: tuple[BetaPrior, ...]
) -> tuple[Vector, Vector, Vector]:
    """Return the discounted rounds, their squares and the misses that bear on the round after `outcome`.

    Parameters
    ----------
    counts : Counts
        Discounted counts, one row per client.
    outcome : ndarray of int, shape (n_clients,)
        The outcome after which the client is to be predicted, AFTER_ARRIVAL or AFTER_MISS.
    borrowing : Borrowing
        What the other rounds count.
    theta : float
        The fleet's log odds ratio.
    priors : tuple of BetaPrior
        Fleet priors after an arrival, after a miss, and of all rounds together.

    Notes
    -----
    Rounds after the other outcome have weight w, and rounds whose predecessor is not known count in full. Their miss
    fraction k'/n' is moved by ``expit(logit m + d) - m`` and clipped to [0, 1], where m is the mean of that column's
    own posterior, and d is theta (towards a miss), -theta (towards an arrival), or the part of it that a predecessor
    known only by the client's overall miss fraction leaves. Moving the fraction itself would leave 0 of 3 misses at
    0 of 3, and moving the posterior mean would count the prior twice. theta = 0 moves nothing.
    """
    if borrowing.unconditional:
        return _total(counts.rounds), _total(counts.squares), _total(counts.misses)
    every = np.arange(outcome.size)
    other = 1 - outcome
    own_rounds = counts.rounds[every, outcome] + counts.rounds[:, AFTER_UNKNOWN]
    own_squares = counts.squares[every, outcome] + counts.squares[:, AFTER_UNKNOWN]
    rounds = own_rounds + borrowing.weight * counts.rounds[every, other]
    squares = own_squares + borrowing.weight * counts.squares[every, other]
    misses = (
        counts.misses[every, outcome] + counts.misses[:, AFTER_UNKNOWN] + borrowing.weight * counts.misses[every, other]
    )
    if borrowing.shifted and theta != 0.0:
        prior_misses = np.array([prior.misses for prior in priors])
        prior_strength = np.array([prior.strength for prior in priors])
        sign = np.where(outcome == AFTER_MISS, 1.0, -1.0)
        misses += borrowing.weight * _moved(
            counts.rounds[every, other],
            counts.misses[every, other],
            prior_misses[other],
            prior_strength[other],
            sign * theta,
        )
        unknown = counts.rounds[:, AFTER_UNKNOWN]
        if unknown.any():
            overall = (_total(counts.misses) + prior_misses[2]) / (_total(counts.rounds) + prior_strength[2])
            part = np.where(outcome == AFTER_MISS, 1.0 - overall, -overall)
            misses += _moved(unknown, counts.misses[:, AFTER_UNKNOWN], prior_misses[2], prior_strength[2], part * theta)
    return rounds, squares, misses


def _total(table: Vector) -> Vector:
    # Several times faster than a sum over an axis of length 3.
    return np.asarray(table[:, 0] + table[:, 1] + table[:, 2])


def _moved(
    rounds: Vector, misses: Vector, prior_misses: Vector | float, prior_strength: Vector | float, shift: Vector
) -> Vector:
    """Return the misses to add so that a miss fraction moves by `shift` on the logit scale."""
    mean = (misses + prior_misses) / (rounds + prior_strength)
    step = expit(logit(mean) + shift) - mean
    return np.clip(misses + rounds * step, 0.0, rounds) - misses
