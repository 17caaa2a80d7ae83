"""Clients of which nothing but silence is known, in families whose least time nothing else bounds."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

from fedgc.completion_times.base import FleetPrior, TimeFamily, silent_presence
from fedgc.completion_times.sample import Entries, Sample, Vector

#: Mean times of usual clients, and as many of those unlike them.
_POINTS = 12
#: Repetitions of presence and weights.
_STEPS = 3
#: Values of the presence, each as likely.
_LEVELS = 16


@dataclass(frozen=True, eq=False)
class NeverSeen:
    """What is known of the clients that have only been silent, or not even that.

    Attributes
    ----------
    rows : ndarray of int, shape (n_rows,)
        Their rows in the sample.
    first, second, weight : ndarray, shape (n_rows, 24)
        The family's parameters that each of them may have, and how likely they are.
    log_mean, variance : ndarray, shape (n_rows,)
        Mean and variance of the family's first coordinate.
    presence, present : ndarray, shape (n_rows,)
        Probability to take part, and expected number of rounds that it did.

    Notes
    -----
    The first coordinate has a handful of values, of the fleet's usual clients and of the few that are unlike them, each
    as likely as the silence makes it; the second is the fleet's. A mean over times instead of their logarithms would be
    that of the slowest that are thought possible, and a fleet learnt from it would drift to ever slower ones.
    """

    rows: NDArray[np.intp]
    first: Vector
    second: Vector
    weight: Vector
    log_mean: Vector
    variance: Vector
    presence: Vector
    present: Vector

    @classmethod
    def of(cls, family: TimeFamily, sample: Sample, prior: FleetPrior) -> NeverSeen:
        """Return them with what their silence makes likely."""
        unseen = sample.seen.sum(sample.seen.weight) <= 0.0
        rows, silent = np.flatnonzero(unseen), sample.silent.take(unseen)
        own = sample.take(unseen)
        points, log_prior = _points(prior)
        (first, second), longer = _longer(family, silent, prior, points)
        # First as if they were absent: who has gone must not be taken for slow.
        presence, present = silent_presence(own, prior, longer @ np.exp(log_prior))
        weight = np.tile(np.exp(log_prior), (rows.size, 1))
        for _ in range(_STEPS):
            log_weight = log_prior + silent.sum(silent.weight[:, None] * silent.log_silence(presence, longer))
            weight = np.exp(log_weight - log_weight.max(axis=1, keepdims=True))
            weight /= weight.sum(axis=1, keepdims=True)
            presence, present = silent_presence(own, prior, (weight[silent.owner] * longer).sum(axis=1))
        mean = weight @ points
        variance = (weight * (points - mean[:, None]) ** 2).sum(axis=1)
        shape = weight.shape
        return cls(
            rows,
            np.broadcast_to(first, shape),
            np.broadcast_to(second, shape),
            weight,
            mean,
            variance,
            presence,
            present,
        )


def mark_gone(family: TimeFamily, sample: Sample, prior: FleetPrior) -> Sample:
    """Return the sample with its clients marked that were never seen and seem to have gone.

    Notes
    -----
    With S_j the probability that a client of the fleet takes longer than the j-th wait, and a its presence, all of a
    client's silence has probability ``E prod_j (1 - a + a S_j)``. A client has gone if that is larger for a presence
    that may be anything, thought of at first for one client in twenty, than for the fleet's. A fleet that is alike and
    always there would otherwise hold such a client for present, and slow.
    """
    unseen = (sample.seen.sum(sample.seen.weight) <= 0.0) & (sample.silent.sum(sample.silent.unsure) > 0.0)
    gone = np.zeros(unseen.size, dtype=np.bool_)
    rows, silent = np.flatnonzero(unseen), sample.silent.take(unseen)
    if rows.size:
        points, log_prior = _points(prior)
        longer = _longer(family, silent, prior, points)[1] @ np.exp(log_prior)
        level = (np.arange(_LEVELS) + 0.5) / _LEVELS
        odd = np.array([False, True])
        evidence = []
        for before, absent, share in zip(*prior.presence_counts(odd), (k.share for k in prior.kinds), strict=True):
            missed = 1.0 - betaincinv(before, absent, level) * (1.0 - longer[:, None])
            log_prob = silent.sum(silent.unsure[:, None] * np.log(np.maximum(missed, np.finfo(np.float64).tiny)))
            evidence.append(np.log(share / _LEVELS) + np.logaddexp.reduce(log_prob, axis=1))
        gone[rows] = evidence[1] > evidence[0]
    return replace(sample, gone=gone)


def _points(prior: FleetPrior) -> tuple[Vector, Vector]:
    """Return first coordinates that clients of the fleet have, and the logarithms of their probabilities."""
    along = np.linspace(-2.8, 2.8, _POINTS)
    density = np.exp(-0.5 * along**2) / np.exp(-0.5 * along**2).sum()
    points = np.concatenate([prior.mean[0] + kind.spread * along for kind in prior.kinds])
    log_prior = np.log(np.concatenate([kind.share * density for kind in prior.kinds]))
    return np.clip(points, -300.0, 300.0), log_prior


def _longer(
    family: TimeFamily, silent: Entries, prior: FleetPrior, points: Vector
) -> tuple[tuple[Vector, Vector], Vector]:
    """Return the parameters of each point, and P(X > bound) of each entry for each of them, (n_entries, n_points)."""
    first, second = family.natural(np.stack([points, np.full(points.size, prior.mean[1])], axis=1))
    longer = np.zeros((silent.owner.size, points.size))
    for log_prob, log_factor in prior.shifts:
        x = np.exp(silent.log_time - log_factor)[:, None]
        longer += np.exp(log_prob + family.log_survival(x, first, second))
    return (first, second), longer
