"""Shifted-exponential seconds per shard: a least time and a memoryless delay."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from fedgc.completion_times.base import Estimate, FleetPrior, Floats, Nodes, TimeFamily, silent_presence
from fedgc.completion_times.never_seen import NeverSeen
from fedgc.completion_times.sample import Entries, Sample, Vector

#: Range of mean delay / mean time. At 0 all times would be the same; at 1 there is no least time.
_RATIO_RANGE = (1e-3, 0.999)
#: Points at which the posterior of the least time is weighed, and how many of its scales they reach down.
_POINTS, _REACH = 24, 12.0
#: Log density of what a family rules out.
_LEAST_LOG = -1e9
#: Least log survival: with none at all, who is there and takes longer than can be would divide zero by zero.
_LEAST_LOG_SURVIVAL = -600.0
#: Prior rounds in the delay's posterior at most, however alike the clients seem.
_MOST_PSEUDO_ROUNDS = 200.0


class ShiftedExponentialTimes(TimeFamily):
    """Seconds per shard with ``x = first + second * E``, E standard exponential.

    Notes
    -----
    The coordinates are log(first + second), the mean time, and log(second / (first + second)). The likelihood is not
    smooth in `first`, so nothing here is Newton. With n rounds seen (weighted), v the prior's rounds and r the fleet's
    ratio of delay to time,

        second = (sum w (x - first) + silent excess + v r (first + second)) / (n + v),
        p(first | second) proportional to prior * exp(n first / second) up to the least x,

    and the two are repeated. The posterior mean of `first` lies second / n below the least x, which is the usual
    correction of the minimum's bias, and with v = 0 makes ``second = sum w (x - min x) / (n - 1)``.

    Examples
    --------
    >>> ShiftedExponentialTimes().cdf([0.5, 1.0, 2.0], 1.0, 0.5).round(4).tolist()
    [0.0, 0.0, 0.8647]
    """

    name: ClassVar[str] = "shifted-exponential"

    def log_density(self, x: ArrayLike, first: Floats, second: Floats) -> Vector:
        """Return the logarithm of the density at `x` seconds per shard, -inf below `first`."""
        late = np.asarray(x, dtype=np.float64) - first
        with np.errstate(over="ignore"):
            return np.where(late >= 0.0, -late / second - np.log(second), -np.inf)

    def log_survival(self, x: ArrayLike, first: Floats, second: Floats) -> Vector:
        """Return the logarithm of P(X > x)."""
        late: Vector = np.maximum(np.asarray(x, dtype=np.float64) - first, 0.0)
        with np.errstate(over="ignore"):
            return np.asarray(-late / second)

    def quantile(self, probability: ArrayLike, first: Floats, second: Floats) -> Vector:
        """Return the seconds per shard that are not exceeded with `probability`."""
        with np.errstate(divide="ignore"):
            delay = -np.log1p(-np.asarray(probability, dtype=np.float64))
        return np.asarray(np.asarray(first) + np.asarray(second) * delay)

    def natural(self, coordinates: Vector) -> tuple[Vector, Vector]:
        """Return least time and mean delay."""
        mean, ratio = np.exp(coordinates[..., 0]), np.exp(coordinates[..., 1])
        return mean * (1.0 - ratio), mean * ratio

    def estimate(
        self,
        sample: Sample,
        prior: FleetPrior,
        *,
        start: Estimate | None = None,
        max_steps: int = 30,
        tolerance: float = 1e-2,
        find_slow: bool = False,
    ) -> Estimate:
        """Fit every client by repeating the two formulas, see :meth:`TimeFamily.estimate`."""
        seen, silent = sample.seen, sample.silent
        if start is None:
            coordinates = np.tile(np.asarray(prior.mean), (sample.n_clients, 1))
            count = seen.sum(seen.weight)
            center = (seen.sum(seen.weight * seen.log_time) + 0.1 * prior.mean[0]) / (count + 0.1)
            coordinates[:, 0] = np.where(count > 0.0, center, prior.mean[0])
            presence = np.full(sample.n_clients, prior.present / (prior.present + prior.absent))
        else:
            coordinates, presence = start.coordinates.copy(), start.presence
        unseen = NeverSeen.of(self, sample, prior)
        coordinates[unseen.rows] = np.stack([unseen.log_mean, np.full(unseen.rows.size, prior.mean[1])], axis=1)
        first, second = self.natural(_clip(coordinates))
        for _ in range(max(max_steps, 1)):
            kinds, tails = self._kinds(seen, prior, first, second), self._tails(silent, prior, first, second)
            shares = [np.exp(kind - np.logaddexp.reduce(kinds)) for kind in kinds]
            longer = np.sum(tails, axis=0)
            new_presence, present = silent_presence(sample, prior, longer)
            new_presence[unseen.rows], present[unseen.rows] = unseen.presence, unseen.present
            there = silent.presence(new_presence)
            silent_shares = [there * tail / (1.0 - there + there * longer) for tail in tails]
            new_first, new_second, variance, pseudo = self._update(
                sample, prior, shares, silent_shares, (first, second)
            )
            new_first[unseen.rows], new_second[unseen.rows] = first[unseen.rows], second[unseen.rows]
            moved = np.abs(np.log((new_first + new_second) / (first + second))) + np.abs(np.log(new_second / second))
            change = max(moved.max(initial=0.0), np.abs(new_presence - presence).max(initial=0.0))
            first, second, presence = new_first, new_second, new_presence
            if change < np.sqrt(tolerance):
                break
        mean = first + second
        coordinates = _clip(np.stack([np.log(mean), np.log(second / mean)], axis=1))
        covariance = np.stack([variance / mean**2 + (second / mean) ** 2 / pseudo, 0.0 * mean, 1.0 / pseudo], axis=1)
        covariance[unseen.rows, 0] = unseen.variance
        slow = shares[-1] * seen.weight if len(shares) > 1 else np.zeros(1)
        ratio = np.exp(seen.log_time - np.log(mean)[seen.owner]) if len(shares) > 1 else np.zeros(1)
        step = 0.0
        if slow.sum() > 1e-6:
            # In a slow round x is slow_factor times the mean time on average.
            step = float(np.log(max(slow @ ratio / slow.sum(), 1e-9) / prior.slow_factor))
        slow_weight = float(slow.sum())
        if len(silent_shares) > 1:
            slow_weight += float(silent.weight @ silent_shares[-1])
        return Estimate(coordinates, covariance, presence, present, slow_weight, float(np.clip(step, -0.5, 0.5)))

    def _kinds(self, entries: Entries, prior: FleetPrior, first: Vector, second: Vector) -> list[Vector]:
        """Return the log density of each entry in a usual and in a slow round."""
        own, found = entries.owner, []
        for log_prob, log_factor in prior.shifts:
            density = self.log_density(np.exp(entries.log_time - log_factor), first[own], second[own])
            # A least time above some x has not seen that x yet; the next update mends it.
            found.append(log_prob - log_factor + np.maximum(density, _LEAST_LOG))
        return found

    def _tails(self, entries: Entries, prior: FleetPrior, first: Vector, second: Vector) -> list[Vector]:
        """Return the probability of each entry to be of a usual or a slow round, and to be longer."""
        own = entries.owner
        found = []
        for log_prob, log_factor in prior.shifts:
            survival = self.log_survival(np.exp(entries.log_time - log_factor), first[own], second[own])
            found.append(np.exp(log_prob + np.maximum(survival, _LEAST_LOG_SURVIVAL)))
        return found

    def _update(
        self,
        sample: Sample,
        prior: FleetPrior,
        shares: list[Vector],
        silent_shares: list[Vector],
        last: tuple[Vector, Vector],
    ) -> tuple[Vector, Vector, Vector, Vector]:
        """Return least time, mean delay, variance of the least time, and rounds that the delay's posterior rests on."""
        seen, silent = sample.seen, sample.silent
        first, second = last
        factors = [np.exp(-shift) for _, shift in prior.shifts]
        usual = np.exp(seen.log_time)
        x = usual * np.sum([share * factor for share, factor in zip(shares, factors, strict=True)], axis=0)
        count = seen.sum(seen.weight)
        least = seen.min(usual if len(shares) == 1 else np.where(shares[1] > 0.5, usual * factors[1], usual))
        excess, held = np.zeros(silent.owner.size), np.zeros(silent.owner.size)
        for share, factor in zip(silent_shares, factors, strict=True):
            late = np.exp(silent.log_time) * factor - first[silent.owner]
            excess += share * np.maximum(late, 0.0)
            held += share * (late > 0.0)
        pressure = count + silent.sum(silent.weight * held)
        rounds = np.clip(1.0 / prior.spread[1] ** 2, 1.0, _MOST_PSEUDO_ROUNDS)
        ratio = np.clip(np.exp(prior.mean[1]), *_RATIO_RANGE)
        scale = np.maximum(second, _RATIO_RANGE[0] * (first + second))
        new_first, variance = _least_time(least, pressure, scale, prior)
        total = np.maximum(seen.sum(seen.weight * x) - count * new_first, 0.0) + silent.sum(silent.weight * excess)
        new_second = (total + rounds * ratio * (new_first + second)) / (count + rounds)
        return new_first, np.maximum(new_second, _RATIO_RANGE[0] * new_first), variance, count + rounds

    def posterior(self, sample: Sample, prior: FleetPrior, estimate: Estimate) -> Nodes:
        """Return eight least times for each of three mean delays.

        Notes
        -----
        The least times stand for equal parts of an exponential below the least x (of the posterior's width), the
        delays are Gauss-Hermite's nodes for its logarithm. A client of which nothing was seen has the mean time's
        normal prior instead, times the likelihood of its silence.
        """
        node, weight = np.array([-np.sqrt(3.0), 0.0, np.sqrt(3.0)]), np.array([1.0, 4.0, 1.0]) / 6.0
        first, second = self.natural(estimate.coordinates)
        width = np.sqrt(
            np.maximum(estimate.covariance[:, 0] * (first + second) ** 2 - second**2 * estimate.covariance[:, 2], 0.0)
        )
        level = (np.arange(8) + 0.5) / 8.0
        delay = 1.0 + np.log(level)  # mean 0, so that the nodes keep the estimate
        firsts = np.maximum(first[:, None, None] + width[:, None, None] * delay[:, None], 0.0)
        seconds = second[:, None, None] * np.exp(np.sqrt(estimate.covariance[:, 2])[:, None, None] * node)
        firsts, seconds = np.broadcast_arrays(firsts, seconds)
        weights = np.broadcast_to(weight / 8.0, firsts.shape).copy()
        shape = (len(first), -1)
        firsts, seconds, weights = (part.reshape(shape).copy() for part in (firsts, seconds, weights))
        unseen = NeverSeen.of(self, sample, prior)
        firsts[unseen.rows], seconds[unseen.rows] = unseen.first, unseen.second
        weights[unseen.rows] = unseen.weight
        return Nodes(firsts, seconds, weights)


def _least_time(least: Vector, pressure: Vector, scale: Vector, prior: FleetPrior) -> tuple[Vector, Vector]:
    """Return posterior mean and variance of the least time, given the mean delay `scale`."""
    # Without a time seen nothing bounds the least time from above but the prior itself.
    highest = np.exp(np.clip(prior.mean[0] + 4.0 * prior.spread[0], -300.0, 300.0))
    top = np.where(np.isfinite(least), least, highest)
    reach = np.minimum(top, np.where(np.isfinite(least), _REACH * scale / np.maximum(pressure, 1e-9), top))
    fraction = (np.arange(_POINTS) + 0.5) / _POINTS
    # Squared, so that the points are densest next to the least x, where the posterior is.
    point = top[:, None] - reach[:, None] * fraction**2
    log_mean = np.log(point + scale[:, None])
    fleet = prior.location(log_mean).value
    log_weight = pressure[:, None] * (point - top[:, None]) / scale[:, None] + fleet - log_mean + np.log(fraction)
    weight = np.exp(log_weight - log_weight.max(axis=1, keepdims=True))
    weight /= weight.sum(axis=1, keepdims=True)
    mean = (weight * point).sum(axis=1)
    return mean, (weight * (point - mean[:, None]) ** 2).sum(axis=1)


def _clip(coordinates: Vector) -> Vector:
    low, high = np.log(_RATIO_RANGE)
    return np.stack([np.clip(coordinates[:, 0], -300.0, 300.0), np.clip(coordinates[:, 1], low, high)], axis=1)
