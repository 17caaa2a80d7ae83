"""How far a client's own frequency is believed rather than its model: by which has predicted better."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import softmax

from fedgc.completion_times.clients import FittedClients
from fedgc.completion_times.sample import Vector
from fedgc.completion_times.timeline import RoundSeen

#: Share of the model, of the own frequency, and of the mean of both, before any prediction has been scored.
_PRIOR = np.array([0.5, 0.2, 0.3])
#: Factor by which the scores fade with every update, and how far behind one can be: so that it can come back.
_FORGETTING, _FURTHEST = 0.98, 20.0
#: Times are told apart by these quantiles of those that clients are given.
_QUANTILES = (0.1, 0.3, 0.5, 0.7, 0.9)
#: No outcome is thought less likely than this.
_LEAST_PROB = 1e-6


@dataclass(frozen=True)
class Mixing:
    """Scores of a fleet's predictions: by the model, by each client's own frequency, and by the mean of both.

    Parameters
    ----------
    log_scores : tuple of three floats
        Faded sum of the log probabilities that each gave to outcomes before they were seen; the best has 0.

    Notes
    -----
    Each is weighted by its share at first times e to its log score (a Bayesian mixture): over a run it loses no more
    than the logarithm of its share to the best of the three, whichever that is. What is scored is a proper score of
    what predictions are used for, who comes in time: the probability to come between the two of a few times that
    clients are given, if a reply came between them, or of silence for as long as a client was waited for. Densities
    would be scored for their shape between deadlines as well.

    Examples
    --------
    >>> round(Mixing().frequency_share, 6)
    0.35
    >>> round(Mixing((0.0, -20.0, -20.0)).frequency_share, 6)
    0.0
    """

    log_scores: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def frequency_share(self) -> float:
        """How much of a prediction is the client's own frequency, in [0, 1]."""
        share = softmax(np.log(_PRIOR) + np.array(self.log_scores))
        return float(share[1] + 0.5 * share[2])

    def observe(self, fit: FittedClients, seen: RoundSeen, asked: Vector) -> Mixing:
        """Return the scores after one more round.

        Parameters
        ----------
        fit : FittedClients
            The clients as they were known before it.
        seen : RoundSeen
            What it has shown.
        asked : ndarray, shape (n_asked,)
            Logarithms of the seconds per shard that clients were given before, see :meth:`Timeline.asked`.
        """
        if not seen.rows.size or not asked.size:
            return self
        rows, log_time, silent = seen.rows, seen.log_time, seen.censored
        edges = np.unique(np.quantile(asked, _QUANTILES))
        place = np.searchsorted(edges, log_time)
        limits = np.concatenate([[-np.inf], edges, [np.inf]])
        lower, upper = np.where(silent, log_time, limits[place]), np.where(silent, np.inf, limits[place + 1])
        # Silence is what is left: not to come until then, at any later time or not at all.
        by_upper = np.where(silent, 1.0, fit.both(rows, upper))
        chance = by_upper - fit.both(rows, lower)
        scores = np.log(np.clip([*chance, chance.mean(axis=0)], _LEAST_PROB, 1.0)).sum(axis=1)
        faded = _FORGETTING * np.array(self.log_scores) + scores
        best = np.maximum(faded - faded.max(), -_FURTHEST)
        return Mixing((float(best[0]), float(best[1]), float(best[2])))
