"""Reliability: what past rounds say about the probability that a client misses the next deadline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedgc.validation import check_positive, check_vector


@dataclass(frozen=True)
class ReliabilityPosterior:
    """Beta posterior over each client's probability to arrive by the deadline.

    Parameters
    ----------
    prior_arrivals, prior_misses : float
        Pseudo-counts of the Beta prior, both above 0. The default counts one arrival and one miss (uniform prior).
    forgetting : float
        Factor in (0, 1] by which past evidence fades with every round that the client takes part in; 1 keeps it for
        ever. The default remembers about 100 rounds.
    arrivals, misses : mapping of int to float
        Faded counts of past outcomes by node id; a node that is not listed has not been observed.

    Notes
    -----
    After outcomes y_1 .. y_t in {0, 1} with forgetting factor f the straggle probability is the posterior mean
    ``(b + sum f^(t-s) (1 - y_s)) / (a + b + sum f^(t-s))``. It is used for round t + 1 before that round's outcome
    is known: weights that depended on the outcome they weigh would bias the decoder.

    Examples
    --------
    >>> posterior = ReliabilityPosterior().update({7: True, 8: False})
    >>> posterior.straggle_prob([7, 8, 9]).round(3).tolist()
    [0.333, 0.667, 0.5]
    """

    prior_arrivals: float = 1.0
    prior_misses: float = 1.0
    forgetting: float = 0.99
    arrivals: Mapping[int, float] = field(default_factory=dict)
    misses: Mapping[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_positive("prior_arrivals", self.prior_arrivals)
        check_positive("prior_misses", self.prior_misses)
        if not 0.0 < self.forgetting <= 1.0:
            raise ValueError(f"forgetting must lie in (0, 1]; got {self.forgetting!r}")

    def update(self, arrived: Mapping[int, bool]) -> ReliabilityPosterior:
        """Return the posterior after a round in which `arrived` maps each participant's node id to its outcome."""
        arrivals, misses = dict(self.arrivals), dict(self.misses)
        for node_id, came in arrived.items():
            arrivals[node_id] = self.forgetting * arrivals.get(node_id, 0.0) + came
            misses[node_id] = self.forgetting * misses.get(node_id, 0.0) + (not came)
        return ReliabilityPosterior(self.prior_arrivals, self.prior_misses, self.forgetting, arrivals, misses)

    def straggle_prob(self, node_ids: Iterable[int]) -> NDArray[np.float64]:
        """Return the posterior mean of the probability to miss the deadline, one entry per node id."""
        nodes = list(node_ids)
        came = self.prior_arrivals + np.array([self.arrivals.get(node, 0.0) for node in nodes])
        missed = self.prior_misses + np.array([self.misses.get(node, 0.0) for node in nodes])
        return check_vector("straggle_prob", missed / (came + missed), length=len(nodes), low=0.0, high=1.0)
