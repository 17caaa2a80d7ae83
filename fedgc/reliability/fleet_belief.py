"""What the fleet as a whole has shown: its priors, and how well each model has predicted it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import softmax

from fedgc.reliability.counts import AFTER_ARRIVAL, AFTER_MISS, AFTER_UNKNOWN, Counts, Vector, effective
from fedgc.reliability.fleet_prior import BetaPrior, fit_beta_prior
from fedgc.reliability.persistence import Borrowing

#: Factor by which the models' scores fade with every update: a fleet may become persistent, and cease to be.
_SCORE_FORGETTING = 0.98
#: The priors are fitted anew after every update at first, then after a tenth of the updates so far, at most this many.
_LONGEST_PAUSE = 10

Priors = tuple[BetaPrior, BetaPrior, BetaPrior]


@dataclass(frozen=True)
class FleetBelief:
    """What carries over from round to round about the fleet.

    Attributes
    ----------
    models : tuple of Borrowing
        The models whose predictions are mixed.
    log_scores : tuple of float
        Faded sum of the log probabilities that each model gave to outcomes before they were seen.
    priors : tuple of BetaPrior
        Prior of the probability to miss after an arrival, after a miss, and of all rounds together.
    learnt : bool
        Whether the priors are fitted to the fleet; otherwise they stay as they are.
    updates, fitted_at : int
        Updates so far, and how many there were at the last fit.
    """

    models: tuple[Borrowing, ...]
    log_scores: tuple[float, ...]
    priors: Priors
    learnt: bool
    updates: int = 0
    fitted_at: int = 0

    @property
    def weights(self) -> Vector:
        """Share of each model in the mixture: ``prior weight x exp(log score)``, scaled to sum 1."""
        prior = np.log([model.prior_weight for model in self.models])
        return np.asarray(softmax(prior + np.array(self.log_scores)), dtype=np.float64)

    def observe(self, mean: Vector, missed: Vector) -> FleetBelief:
        """Return the fleet after one more round.

        Parameters
        ----------
        mean : ndarray, shape (n_models, n_clients)
            Probability to miss by each model, before the round.
        missed : ndarray, shape (n_clients,)
            What happened. Outcomes strictly between 0 and 1 were not seen and score nothing.
        """
        scores = np.where(missed == 1.0, np.log(mean), np.log1p(-mean))
        seen = (missed == 0.0) | (missed == 1.0)
        faded = _SCORE_FORGETTING * np.array(self.log_scores) + scores[:, seen].sum(axis=1)
        # Only differences count; without the common part the numbers stay small.
        faded -= faded.max()
        return replace(self, log_scores=tuple(faded.tolist()), updates=self.updates + 1)

    def refit(self, counts: Counts, *, at_once: bool) -> FleetBelief:
        """Return the fleet with its priors fitted to the counts, if they are learnt and it is time or `at_once`."""
        pause = min(max(self.updates // 10, 1), _LONGEST_PAUSE)
        if not self.learnt or (self.updates < self.fitted_at + pause and not at_once):
            return self

        def fit(start: BetaPrior, columns: list[int], likely_mean: float) -> BetaPrior:
            tables = counts.rounds, counts.squares, counts.misses
            evidence = effective(*(table[:, columns].sum(axis=1) for table in tables))
            return fit_beta_prior(*evidence, start, likely_mean=likely_mean)

        after_arrival, after_miss, overall = self.priors
        overall = fit(overall, [AFTER_ARRIVAL, AFTER_MISS, AFTER_UNKNOWN], 0.5)
        # The rounds after an outcome are thought to be like any rounds of the fleet until they show something else.
        # After the first round they have not shown anything.
        if len(self.models) > 1:
            after_arrival = fit(after_arrival, [AFTER_ARRIVAL], overall.mean)
            after_miss = fit(after_miss, [AFTER_MISS], overall.mean)
        return replace(self, priors=(after_arrival, after_miss, overall), fitted_at=self.updates)
