"""Presence that persists: who was away in the last round may well be away in the next."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax

from fedgc.completion_times.base import Estimate, FleetPrior
from fedgc.completion_times.fleet import presence_prior
from fedgc.completion_times.sample import Vector
from fedgc.completion_times.timeline import Timeline

#: Correlation of a client's presence in one round with that in the next; the first is that of rounds drawn anew.
PERSISTENCE = np.array([0.0, 0.3, 0.6, 0.85, 0.95, 0.99])
#: How likely each is at first: half for none, so that a fleet without any loses little.
_PRIOR = np.array([0.5, 0.1, 0.1, 0.1, 0.1, 0.1])
#: However sure the fleet is, a client may differ from it with this probability.
_UNLIKE_FLEET = 1e-3
_TINY = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True, eq=False)
class PersistentPresence:
    """Probability of each client to take part in the coming round, given its last ones.

    Attributes
    ----------
    usual : ndarray, shape (n_persistences, n_clients)
        Share of the rounds that the client takes part in, for each of ``PERSISTENCE``.
    coming : ndarray, shape (n_persistences, n_clients)
        Probability to take part in the coming round.
    log_likelihood : ndarray, shape (n_persistences, n_clients)
        Logarithm of the probability of the client's rounds, each given those before it.

    Notes
    -----
    A client is there or away, a Markov chain of two states with a usual share a there and persistence k:

        P(there | there) = a + k (1 - a),   P(there | away) = a (1 - k).

    A reply shows that it was there. Silence has probability S if it was, 1 if not, S being the probability to take
    longer than was waited, from which the probability to have been there follows (forward recursion, L. E. Baum et al.,
    Ann. Math. Stat. 41, 1970). With k the rounds tell less of a: they count as ``(1 - k) / (1 + k)`` as many. How
    persistent a client is follows from its own likelihood and, a priori, that of all the others.
    """

    usual: Vector
    coming: Vector
    log_likelihood: Vector

    @property
    def prob(self) -> Vector:
        """Probability of each client to take part in the coming round, averaged over the persistence, (n_clients,)."""
        others = self.log_likelihood.sum(axis=1, keepdims=True) - self.log_likelihood
        fleet = np.logaddexp(log_softmax(np.log(_PRIOR)[:, None] + others, axis=0), np.log(_UNLIKE_FLEET))
        mean: Vector = (softmax(fleet + self.log_likelihood, axis=0) * self.coming).sum(axis=0)
        return mean

    def after(self, rows: NDArray[np.intp], silent: NDArray[np.bool_], longer: Vector) -> PersistentPresence:
        """Return the presence after one more round of some clients.

        Parameters
        ----------
        rows : ndarray of int, shape (n,)
            The clients, each at most once.
        silent : ndarray of bool, shape (n,)
            Who did not answer, and may have been absent.
        longer : ndarray, shape (n,)
            Probability of each to take longer than it was waited for, if it was there.
        """
        coming, log_likelihood = self.coming.copy(), self.log_likelihood.copy()
        coming[:, rows], gain = _step(self.usual[:, rows], coming[:, rows], silent, longer)
        log_likelihood[:, rows] += gain
        return replace(self, coming=coming, log_likelihood=log_likelihood)


def persistent_presence(
    timeline: Timeline, prior: FleetPrior, estimate: Estimate, gone: NDArray[np.bool_], longer: Vector
) -> PersistentPresence:
    """Return the presence of each client in the coming round.

    Parameters
    ----------
    timeline : Timeline
        What was seen.
    prior : FleetPrior
        The fleet.
    estimate : Estimate
        What is known of each client if rounds are drawn anew.
    gone : ndarray of bool, shape (n_clients,)
        Clients that seem to have gone.
    longer : ndarray, shape (n_clients, window)
        Probability to take longer than was waited for, of a client that is there.
    """
    rounds, present = timeline.weight.sum(axis=1), estimate.present_weight
    used = rounds > 0.0
    usual = [estimate.presence]
    for persistence in PERSISTENCE[1:]:
        worth = (1.0 - persistence) / (1.0 + persistence)
        counts = presence_prior(worth * present[used], worth * rounds[used], gone[used])
        before, absent = replace(prior, present=counts[0], absent=counts[1]).presence_counts(gone)
        usual.append((before + worth * present) / (before + absent + worth * rounds))
    stationary = np.stack(usual)
    coming, log_likelihood = stationary.copy(), np.zeros(stationary.shape)
    unsure, seen = timeline.unsure, timeline.used
    for k in range(int(seen.any(axis=0).sum())):
        later, gain = _step(stationary, coming, unsure[:, k], longer[:, k])
        coming = np.where(seen[:, k], later, coming)
        log_likelihood += np.where(seen[:, k], gain, 0.0)
    return PersistentPresence(stationary, coming, log_likelihood)


def _step(usual: Vector, coming: Vector, silent: NDArray[np.bool_], longer: Vector) -> tuple[Vector, Vector]:
    """Return the probability of presence one round later, and the log probability of the round."""
    quiet = np.maximum(1.0 - coming + coming * longer, _TINY)
    there = np.where(silent, coming * longer / quiet, 1.0)
    return usual + PERSISTENCE[:, None] * (there - usual), np.log(np.where(silent, quiet, np.maximum(coming, _TINY)))
