"""Whole updates, each on its own: the straggler model of most of the literature."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedgc.arrivals.base import ArrivalModel, Part
from fedgc.validation import check_integer, check_straggle_prob


class IndependentArrivals(ArrivalModel):
    """Client i misses the deadline with probability p_i, independently of the others, and else sends one coded update.

    Parameters
    ----------
    straggle_prob : array_like, shape (n_clients,)
        Probability p_i in [0, 1).

    Raises
    ------
    ValueError
        If a probability lies outside [0, 1).

    Examples
    --------
    >>> IndependentArrivals([0.25, 0.5]).row_probability.tolist()
    [0.75, 0.5]
    """

    def __init__(self, straggle_prob: ArrayLike) -> None:
        check_integer("number of probabilities in straggle_prob", np.size(np.asarray(straggle_prob)), low=1)
        self.straggle_prob = check_straggle_prob(straggle_prob, np.size(np.asarray(straggle_prob)))
        self.n_rows = self.straggle_prob.size

    def parts(self) -> Sequence[Part]:
        """Return a part of two outcomes for every client."""
        outcomes = np.array([[False], [True]])
        return [
            Part(np.array([client]), outcomes, np.array([p, 1.0 - p])) for client, p in enumerate(self.straggle_prob)
        ]

    @property
    def row_probability(self) -> NDArray[np.float64]:
        """Probability that each client's update arrives, shape (n_clients,)."""
        return 1.0 - self.straggle_prob

    @property
    def n_sets(self) -> int:
        """Number of possible sets of arrivals, ``2^n_clients``."""
        return int(2**self.n_rows)

    def log_silence(self, group_of_row: NDArray[np.intp], n_groups: int) -> NDArray[np.float64]:
        """Return the log probability that nothing of each group arrives, shape (n_groups,)."""
        with np.errstate(divide="ignore"):  # log 0 of a client that never straggles
            return np.bincount(group_of_row, np.log(self.straggle_prob), n_groups).astype(np.float64)

    def draw(self, n_draws: int, rng: np.random.Generator) -> NDArray[np.bool_]:
        """Return `n_draws` random sets of arrivals, shape (n_draws, n_clients)."""
        return rng.random((n_draws, self.n_rows)) >= self.straggle_prob
