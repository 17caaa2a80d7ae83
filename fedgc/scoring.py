"""Scoring: how good predicted probabilities were, once the outcomes are known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import xlog1py, xlogy

from fedgc.validation import check_integer, check_vector

Vector = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ReliabilityDiagram:
    """Predicted probabilities against observed frequencies, in bins of equal width over [0, 1].

    Attributes
    ----------
    edges : ndarray, shape (n_bins + 1,)
        Limits of the bins. A bin holds its lower limit; the last one holds 1 as well.
    count : ndarray of int, shape (n_bins,)
        Predictions in the bin.
    mean_predicted : ndarray, shape (n_bins,)
        Mean of the predictions in the bin; NaN where there are none.
    observed_frequency : ndarray, shape (n_bins,)
        Mean of their outcomes; NaN where there are none.
    standard_error : ndarray, shape (n_bins,)
        Standard deviation that the observed frequency has if the predictions are right and the outcomes independent;
        NaN where there are none.
    """

    edges: Vector
    count: NDArray[np.intp]
    mean_predicted: Vector
    observed_frequency: Vector
    standard_error: Vector

    @property
    def calibration_error(self) -> float:
        """Mean of |observed - predicted| over the bins, weighted by their counts (ECE), in [0, 1]."""
        filled = self.count > 0
        gap = np.abs(self.observed_frequency[filled] - self.mean_predicted[filled])
        return float(gap @ self.count[filled] / self.count.sum())


def log_score(probability: ArrayLike, outcome: ArrayLike) -> float:
    """Return the mean log probability that the predictions gave to what happened; 0 is best, higher is better.

    Parameters
    ----------
    probability : array_like, shape (n,)
        Predicted probabilities of the event.
    outcome : array_like, shape (n,)
        Whether it happened: booleans, or numbers in [0, 1] for outcomes that are known only in probability.

    Returns
    -------
    float
        ``mean(y log p + (1 - y) log(1 - p))``, in nats; minus infinity if something happened that was ruled out.

    Raises
    ------
    ValueError
        If there is nothing to score, the shapes differ, or an entry lies outside [0, 1].

    References
    ----------
    T. Gneiting and A. E. Raftery, Strictly Proper Scoring Rules, Prediction, and Estimation, JASA 102 (2007).

    Examples
    --------
    >>> round(log_score([0.5, 0.5], [True, False]), 4)
    -0.6931
    """
    p, y = _check(probability, outcome)
    return float(np.mean(xlogy(y, p) + xlog1py(1.0 - y, -p)))


def brier_score(probability: ArrayLike, outcome: ArrayLike) -> float:
    """Return the mean squared distance of predictions and outcomes, ``mean (p - y)^2``; 0 is best, lower is better.

    Parameters and errors are those of :func:`log_score`. An outcome y known only in probability counts as its mean
    over both possibilities, ``y (1 - p)^2 + (1 - y) p^2``, so that the score stays proper.

    References
    ----------
    G. W. Brier, Verification of Forecasts Expressed in Terms of Probability, Monthly Weather Review 78 (1950).

    Examples
    --------
    >>> brier_score([1.0, 0.5], [True, False])
    0.125
    """
    p, y = _check(probability, outcome)
    return float(np.mean(y * (1.0 - p) ** 2 + (1.0 - y) * p**2))


def reliability_diagram(probability: ArrayLike, outcome: ArrayLike, n_bins: int = 10) -> ReliabilityDiagram:
    """Compare predicted probabilities with observed frequencies, bin by bin.

    Parameters
    ----------
    probability : array_like, shape (n,)
        Predicted probabilities of the event.
    outcome : array_like, shape (n,)
        Whether it happened: booleans, or numbers in [0, 1].
    n_bins : int
        Number of bins of equal width.

    Returns
    -------
    ReliabilityDiagram
        Per bin the mean prediction, the observed frequency, the count, and the standard error
        ``sqrt(sum p (1 - p)) / count``. It is that of right predictions, not of the observed frequency: the latter
        would be 0 in a bin whose few outcomes all agree.

    Raises
    ------
    ValueError
        As for :func:`log_score`, and if n_bins is not an integer of at least 1.

    Examples
    --------
    >>> diagram = reliability_diagram([0.1, 0.2, 0.9, 0.9], [False, True, True, True], n_bins=2)
    >>> diagram.mean_predicted.round(2).tolist(), diagram.observed_frequency.tolist(), diagram.count.tolist()
    ([0.15, 0.9], [0.5, 1.0], [2, 2])
    """
    n_bins = check_integer("n_bins", n_bins, low=1)
    p, y = _check(probability, outcome)
    edges = np.linspace(0.0, 1.0, n_bins + 1)
    # Searching the edges themselves keeps a prediction that equals one in the bin above, whatever the rounding of
    # p * n_bins.
    place = np.minimum(np.searchsorted(edges, p, side="right") - 1, n_bins - 1)
    count = np.bincount(place, minlength=n_bins)
    filled = np.where(count > 0, count, np.nan)
    return ReliabilityDiagram(
        edges=edges,
        count=count,
        mean_predicted=np.bincount(place, p, n_bins) / filled,
        observed_frequency=np.bincount(place, y, n_bins) / filled,
        standard_error=np.sqrt(np.bincount(place, p * (1.0 - p), n_bins)) / filled,
    )


def _check(probability: ArrayLike, outcome: ArrayLike) -> tuple[Vector, Vector]:
    """Return predictions and outcomes as vectors of one length, or raise ValueError."""
    n = np.size(np.asarray(probability))
    if n == 0:
        raise ValueError("probability must have at least one entry; got none")
    p = check_vector("probability", probability, length=n, low=0.0, high=1.0, who="prediction")
    return p, check_vector("outcome", outcome, length=n, low=0.0, high=1.0, who="prediction")
