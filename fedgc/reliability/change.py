"""Alarms: when a client's recent rounds are too unlike its past to go on believing the past."""

from __future__ import annotations

import numpy as np

from fedgc.reliability.counts import Counts, Vector

#: Score in nats above which a client counts as changed and its past is dropped. Steady clients get there about once in
#: 20,000 rounds.
ALARM = 5.5
#: Nats that a round's evidence for a change must exceed to count.
_ALLOWANCE = 0.1
#: Forgetting of the recent counts. They start anew whenever the score is 0, so this matters in slow changes only.
_RECENT_FORGETTING = 0.9
#: Rounds that the long-run prediction is worth within the recent one: without recent evidence both agree.
_ANCHOR = 1.0


def recent_prediction(slow: Vector, rounds: Vector, misses: Vector) -> Vector:
    """Return the probability to miss that a client's recent rounds suggest.

    Parameters
    ----------
    slow : ndarray
        What its long memory says.
    rounds, misses : ndarray, of the same shape
        Recent counts.

    Notes
    -----
    ``(slow + k) / (1 + n)``. The plain faded counts are right here, not the effective ones: what has faded should no
    longer speak. The fleet prior has no part in it, since a change may lead to where no client of the fleet is.

    Examples
    --------
    >>> recent_prediction(np.array([0.2]), np.array([3.0]), np.array([3.0])).tolist()
    [0.8]
    """
    return (_ANCHOR * slow + misses) / (_ANCHOR + rounds)


def cusum(score: Vector, slow: Vector, fast: Vector, missed: Vector) -> Vector:
    """Return the detector's score after one more outcome, ``max(0, score + log fast(y) / slow(y) - 0.1)``.

    Parameters
    ----------
    score : ndarray, shape (n_clients,)
        Score so far, in nats.
    slow, fast : ndarray, shape (n_clients,)
        The probabilities to miss that the long memory and the recent rounds gave before the outcome.
    missed : ndarray, shape (n_clients,)
        1 for a miss, 0 for an arrival. A number in between was not seen: the score stays.

    Notes
    -----
    If the slow prediction is the truth, the ratio has mean one whatever the fast one is, so that a threshold h is
    crossed less than once in exp(h) rounds in the mean. Both predictions know the client's last outcome: a long
    session of misses is no change for a client that is known to have them. The 0.1 nats that a round has to gain are
    for clients that always come: their recent rounds are a little better than any long memory with a prior in it can
    predict, and without an allowance that alone would add up to an alarm in some hundred rounds.

    References
    ----------
    E. S. Page, Continuous Inspection Schemes, Biometrika 41 (1954); the bound is that of G. Lorden, Procedures for
    Reacting to a Change in Distribution, Annals of Mathematical Statistics 42 (1971).

    Examples
    --------
    >>> cusum(np.zeros(2), np.array([0.1, 0.1]), np.array([0.5, 0.5]), np.array([1.0, 0.0])).round(3).tolist()
    [1.509, 0.0]
    """
    ratio = np.where(missed == 1.0, np.log(fast / slow), np.log1p(-fast) - np.log1p(-slow))
    seen = (missed == 0.0) | (missed == 1.0)
    return np.where(seen, np.maximum(score + ratio - _ALLOWANCE, 0.0), score)


def recent_counts(counts: Counts, score: Vector, previous: Vector, before: Vector, missed: Vector) -> Counts:
    """Return the counts of the rounds since the score was 0 the last time, this one included.

    Parameters
    ----------
    counts : Counts
        Recent counts before the round.
    score : ndarray, shape (n_clients,)
        The detector's score after it.
    previous, before, missed : ndarray, shape (n_clients,)
        The client's outcomes, as in :meth:`fedgc.reliability.counts.Counts.observe`.

    Notes
    -----
    The last zero of the score is the most likely time of a change (Page). Counts that go on fading through it instead
    still hold a tenth of the past ten rounds later, and predict worse while the change is to be found.
    """
    going = np.flatnonzero(score > 0.0)
    nothing = np.full(missed.size, -1.0)
    fresh = Counts.empty(missed.size).observe(previous, nothing, missed, _RECENT_FORGETTING)
    more = counts.take(going).observe(previous[going], before[going], missed[going], _RECENT_FORGETTING)
    return fresh.put(going, more)
