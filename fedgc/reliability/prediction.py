"""The probability to miss, given counts, the last outcome and the fleet: by model, and mixed."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from fedgc.reliability.change import recent_prediction
from fedgc.reliability.clients import NEVER
from fedgc.reliability.counts import AFTER_ARRIVAL, AFTER_MISS, Counts, Index, Vector, effective
from fedgc.reliability.fleet_belief import FleetBelief
from fedgc.reliability.persistence import Borrowing, evidence

#: Where rounding would make a probability certain, it stays this far inside (0, 1).
_INSIDE = 1e-300, float(np.nextafter(1.0, 0.0))
#: Rounds that the fleet prior is worth for a client whose behaviour has changed: it is no typical member any more.
_CHANGED_STRENGTH = 1.0


def inside(prob: Vector) -> Vector:
    """Return probabilities strictly inside (0, 1), which rounding may have made certain."""
    return np.clip(prob, *_INSIDE)


@dataclass(frozen=True, eq=False)
class Prediction:
    """Posterior mean and standard deviation of the probability to miss, each of shape (n_models, n_clients).

    `fast` is the mean that the recent rounds suggest.
    """

    mean: Vector
    deviation: Vector
    fast: Vector

    def mixture(self, weights: Vector) -> tuple[Vector, Vector]:
        """Return mean and variance of the mixture of the models, (n_clients,) each."""
        mean = inside(weights @ self.mean)
        return mean, weights @ (self.deviation**2 + (self.mean - mean) ** 2)

    def recent(self, weights: Vector) -> Vector:
        """Return the mean that the recent rounds suggest, (n_clients,)."""
        return inside(weights @ self.fast)


def predict(
    slow: Counts, fast: Counts, last: Vector, *, changed: NDArray[np.bool_], fleet: FleetBelief, theta: float
) -> Prediction:
    """Predict each client's coming round by each model.

    Parameters
    ----------
    slow, fast : Counts
        Counts of long memory and of recent rounds, one row per client.
    last : ndarray, shape (n_clients,)
        Probability that the client's last outcome was a miss: 0 or 1 where it was seen, NEVER before the first round.
    changed : ndarray of bool, shape (n_clients,)
        Clients whose behaviour has changed.
    fleet : FleetBelief
        Models and priors.
    theta : float
        The fleet's log odds ratio.

    Notes
    -----
    With p_a and p_m the probabilities after an arrival and after a miss, a client whose last outcome was a miss with
    probability u has ``u p_m + (1 - u) p_a``. Before the first round u is the stationary probability to miss,
    ``p_a / (p_a + 1 - p_m)``. Taking that for every outcome that was not seen would throw away what is known of it,
    and jump where it is all but certain. The standard deviations are mixed alike, as if both errors were one: then
    nothing changes where the last outcome makes no difference, and elsewhere the interval is rather too wide.
    """
    seen = (last == 0.0) | (last == 1.0)
    shape = (len(fleet.models), last.size)
    result = Prediction(*(np.empty(shape) for _ in fields(Prediction)))
    known, unknown = np.flatnonzero(seen), np.flatnonzero(~seen)
    for rows, outcomes in (
        (known, [last[known].astype(np.intp)]),
        (unknown, [np.full(unknown.size, AFTER_ARRIVAL), np.full(unknown.size, AFTER_MISS)]),
    ):
        if rows.size == 0:
            continue
        here = slow.take(rows), fast.take(rows)
        for m, model in enumerate(fleet.models):
            after = [
                _after(*here, outcome, model=model, changed=changed[rows], fleet=fleet, theta=theta)
                for outcome in outcomes
            ]
            if len(after) == 2:
                arrival, miss = after
                u = np.where(last[rows] == NEVER, arrival[0] / (arrival[0] + 1.0 - miss[0]), last[rows])
                after = [tuple((1.0 - u) * a + u * b for a, b in zip(arrival, miss, strict=True))]
            for column, values in zip(fields(Prediction), after[0], strict=True):
                getattr(result, column.name)[m, rows] = values
    return result


def _after(
    slow: Counts,
    fast: Counts,
    outcome: Index,
    *,
    changed: NDArray[np.bool_],
    model: Borrowing,
    fleet: FleetBelief,
    theta: float,
) -> tuple[Vector, ...]:
    """Return the columns of the prediction by one model after the given outcomes."""
    which = np.full(outcome.size, 2) if model.unconditional else outcome
    misses = np.array([prior.misses for prior in fleet.priors])[which]
    arrivals = np.array([prior.arrivals for prior in fleet.priors])[which]
    cautious = np.array([prior.cautious_strength for prior in fleet.priors])[which]
    if fleet.learnt:
        trust = np.where(changed, np.minimum(1.0, _CHANGED_STRENGTH / (misses + arrivals)), 1.0)
        misses, arrivals, cautious = trust * misses, trust * arrivals, trust * cautious
    n, k = effective(*evidence(slow, outcome, model, theta, fleet.priors))
    mean = inside((misses + k) / (misses + arrivals + n))
    recent_rounds, _, recent_misses = evidence(fast, outcome, model, theta, fleet.priors)
    quick = inside(recent_prediction(mean, recent_rounds, recent_misses))
    deviation = np.sqrt(mean * (1.0 - mean) / (cautious + n + 1.0))
    return mean, deviation, quick
