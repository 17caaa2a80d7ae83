"""Families whose log x has a location and a scale: one damped Newton iteration serves them all."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
from numpy.typing import ArrayLike

from fedgc.completion_times.base import Estimate, FleetPrior, Floats, TimeFamily, silent_presence
from fedgc.completion_times.newton import Sums, newton_step, precision
from fedgc.completion_times.sample import Entries, Sample, Vector

#: Range of the scale of log x. Identical times would drive it to zero, and with it every later prediction.
SCALE_RANGE = (1e-3, 20.0)
#: Clients are fitted so many observations at a time, so that the arrays of a step stay in the processor's cache.
_CHUNK = 32_768
#: A climb ends once the presence moves less than this, and steps may lose this share of the log posterior,
#: which is how far rounding can go.
_PRESENCE_TOLERANCE, _SLACK = 2e-3, 1e-10
#: No probability is taken for smaller than e^-700, short of where its logarithm would be infinite.
_FLOOR = -700.0


class LogLocationScale(TimeFamily):
    """Families with ``log x = first + second * e``, e of a fixed distribution.

    Notes
    -----
    The coordinates are (location, log scale). A client's log posterior is

        sum_seen w log[ sum_k p_k f(x / f_k) / f_k ] + sum_silent w log[ 1 - a + a sum_k p_k S(x / f_k) ] + log prior,

    k being usual and slow rounds. Gradient and Hessian are those of this mixture itself, not of the expected
    complete-data likelihood of an EM step: Newton on them converges in a few steps where EM takes dozens, and the
    Hessian is then also the posterior's precision. Steps that do not improve a client are taken back and damped.

    The highest joint density of location and scale has too small a scale, by the square root of (n - 1) / n where the
    prior is wide, and for a fleet seen once it is zero. So the scale maximises its own density, the location averaged
    out by Laplace's approximation: its gradient is larger by the share of the location's precision that comes from the
    client's own data (restricted maximum likelihood).

    Parameters
    ----------
    marginal : bool
        False for the highest joint density instead, which is what maximum likelihood gives.
    """

    def __init__(self, *, marginal: bool = True) -> None:
        self.marginal = marginal

    @abstractmethod
    def density_terms(self, z: Vector) -> tuple[Vector, Vector, Vector]:
        """Return the log density of e and its first two derivatives."""

    @abstractmethod
    def survival_terms(self, z: Vector) -> tuple[Vector, Vector, Vector]:
        """Return the log survival function of e and its first two derivatives."""

    @abstractmethod
    def standard_survival(self, z: Vector) -> Vector:
        """Return the survival function of e."""

    @abstractmethod
    def standard_quantile(self, probability: Vector) -> Vector:
        """Return the quantile of e."""

    def log_density(self, x: ArrayLike, first: Floats, second: Floats) -> Vector:
        """Return the logarithm of the density at `x` seconds per shard, -inf at 0."""
        with np.errstate(divide="ignore"):
            y = np.log(np.asarray(x, dtype=np.float64))
        density = self.density_terms((np.maximum(y, _FLOOR) - first) / second)[0] - np.log(second) - y
        return np.where(np.isfinite(y), density, -np.inf)

    def log_survival(self, x: ArrayLike, first: Floats, second: Floats) -> Vector:
        """Return the logarithm of P(X > x)."""
        with np.errstate(divide="ignore"):
            y = np.log(np.asarray(x, dtype=np.float64))
        return np.where(y == -np.inf, 0.0, self.survival_terms((np.clip(y, _FLOOR, -_FLOOR) - first) / second)[0])

    def survival(self, x: ArrayLike, first: Floats, second: Floats) -> Vector:
        """Return P(X > x)."""
        with np.errstate(divide="ignore"):
            y = np.log(np.asarray(x, dtype=np.float64))
        # Not through the logarithm with its derivatives, which takes four times as long. The floor stands for x = 0.
        return self.standard_survival((np.clip(y, _FLOOR, -_FLOOR) - first) / second)

    def quantile(self, probability: ArrayLike, first: Floats, second: Floats) -> Vector:
        """Return the seconds per shard that are not exceeded with `probability`."""
        z = self.standard_quantile(np.asarray(probability, dtype=np.float64))
        return np.exp(np.minimum(np.asarray(first) + np.asarray(second) * z, -_FLOOR))

    def natural(self, coordinates: Vector) -> tuple[Vector, Vector]:
        """Return location and scale of log x."""
        return coordinates[..., 0], np.exp(coordinates[..., 1])

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
        """Fit every client by damped Newton steps, see :meth:`TimeFamily.estimate`."""
        size = sample.n_clients
        theta, presence = _first_guess(sample, prior) if start is None else (start.coordinates.copy(), start.presence)
        covariance, present = np.zeros((size, 3)), np.zeros(size)
        slow = np.zeros(3)
        n_entries = sample.seen.owner.size + sample.silent.owner.size
        chunk = max(_CHUNK * size // max(n_entries, size, 1), 1)
        for low in range(0, size, chunk):
            rows = slice(low, min(low + chunk, size))
            part = sample.rows(rows.start, rows.stop)
            theta[rows], presence[rows], sums = self._climb(
                part, prior, (theta[rows], presence[rows]), max_steps, tolerance
            )
            j11, j12, j22 = precision(sums)
            covariance[rows] = np.stack([j22, -j12, j11], axis=1) / (j11 * j22 - j12**2)[:, None]
            presence[rows], present[rows] = silent_presence(part, prior, sums.longer)
            if find_slow:
                slow += self._slow(part.seen, prior, theta[rows], None)
                slow += self._slow(part.silent, prior, theta[rows], presence[rows])
        step = float(np.clip(slow[1] / max(slow[2], 1.0), -0.5, 0.5))
        return Estimate(theta, covariance, presence, present, float(slow[0]), step)

    def _climb(
        self, sample: Sample, prior: FleetPrior, start: tuple[Vector, Vector], max_steps: int, tolerance: float
    ) -> tuple[Vector, Vector, Sums]:
        """Return coordinates and presence of the optimum, and the sums one step before it or closer."""
        theta, presence = start[0].copy(), start[1].copy()
        sums = self._sums(sample, prior, theta, presence)
        damping = np.full(sample.n_clients, 1e-3)
        # `active` are the clients still on their way: one that takes long must not keep the others.
        active, part, own = np.arange(sample.n_clients), sample, sums
        for _ in range(max_steps):
            fleet = prior.location(theta[active, 0]).curvature
            scale_pull = np.clip(1.0 - fleet / precision(own)[0], 0.0, 1.0) * self.marginal
            step, decrement = newton_step(own, scale_pull, damping, np.exp(theta[active, 1]))
            moved, _ = silent_presence(part, prior, own.longer)
            arrived = (decrement < tolerance) & (np.abs(moved - presence[active]) < _PRESENCE_TOLERANCE)
            presence[active] = moved
            proposal = theta[active] + step
            np.clip(proposal[:, 1], *np.log(SCALE_RANGE), out=proposal[:, 1])
            # The last, small step needs no check, and the curvature no update.
            theta[active[arrived]] = proposal[arrived]
            if arrived.any():
                going = ~arrived
                own = own.take(going, part.silent.owner)
                part, active, proposal = part.take(going), active[going], proposal[going]
                damping, moved, scale_pull = damping[going], moved[going], scale_pull[going]
            if not active.size:
                break
            trial = self._sums(part, prior, proposal, moved)
            gain = trial.value - own.value + scale_pull * (proposal[:, 1] - theta[active, 1])
            better = gain >= -_SLACK * (1.0 + np.abs(own.value))
            damping = np.where(better, np.maximum(damping * 0.1, 1e-9), np.minimum(damping * 10.0 + 0.1, 1e6))
            theta[active[better]] = proposal[better]
            own.replace(trial, better, part.silent.owner)
            chosen = np.zeros(sample.n_clients, dtype=np.bool_)
            chosen[active] = True
            for name in ("value", "g1", "g2", "j11", "j12", "j22"):
                getattr(sums, name)[active] = getattr(own, name)
            sums.longer[chosen[sample.silent.owner]] = own.longer
        return theta, presence, sums

    def _sums(self, sample: Sample, prior: FleetPrior, theta: Vector, presence: Vector) -> Sums:
        location, off = prior.location(theta[:, 0]), (theta[:, 1] - prior.mean[1]) / prior.spread[1]
        scale = np.exp(theta[:, 1])
        seen = self._entries(sample.seen, prior, theta, scale, None)
        silent = self._entries(sample.silent, prior, theta, scale, presence)
        value, g1, g2, j11, j12, j22 = (a + b for a, b in zip(seen[:6], silent[:6], strict=True))
        # With presence as well this is one objective, which neither a step nor an update of the presence lowers.
        came = sample.seen.sum(sample.seen.weight) + sample.silent.sum(sample.silent.weight * sample.silent.there)
        before, absent = prior.presence_counts(sample.gone)
        share = (came + before) * np.log(presence) + absent * np.log1p(-presence)
        return Sums(
            value=value + share + location.value - 0.5 * off**2,
            g1=g1 / scale + location.slope,
            g2=g2 - off / prior.spread[1],
            j11=j11 / scale**2 + location.curvature,
            j12=j12 / scale,
            j22=j22 + prior.spread[1] ** -2,
            longer=silent[6],
        )

    def _mixture(
        self, entries: Entries, prior: FleetPrior, theta: Vector, scale: Vector, presence: Vector | None
    ) -> tuple[list[tuple[Vector, ...]], list[Vector], Vector]:
        """Return (z, derivatives) and log probability of each kind of round, and the logarithm of their sum."""
        owner = entries.owner
        inverse, log_scale = (1.0 / scale)[owner], theta[owner, 1]
        z = (entries.log_time - theta[owner, 0]) * inverse
        terms, logs = [], []
        for log_prob, log_factor in prior.shifts:
            at = z - log_factor * inverse if log_factor else z
            value, *slopes = self.density_terms(at) if presence is None else self.survival_terms(at)
            terms.append((at, *slopes))
            logs.append(log_prob + value - (log_scale if presence is None else 0.0))
        if presence is not None:
            # Presence is above 0, since both pseudo-counts are, and 1 where the client is known to be there.
            there = entries.presence(presence)
            with np.errstate(divide="ignore"):
                logs = [np.log(there) + value for value in logs] + [np.log1p(-there)]
        total = logs[0]
        for value in logs[1:]:
            total = np.logaddexp(total, value)
        return terms, logs, total

    def _entries(
        self, entries: Entries, prior: FleetPrior, theta: Vector, scale: Vector, presence: Vector | None
    ) -> tuple[Vector, ...]:
        """Return sums per client in units of the scale, and P(X > bound) of each silent entry."""
        weight, own = entries.weight, 1.0 if presence is None else 0.0
        terms, logs, total = self._mixture(entries, prior, theta, scale, presence)
        if len(logs) == 1:
            ((z, d1, d2),) = terms
            bend = weight * d2
            first, cross = weight * d1, z * bend
            lean = z * first
            each = [weight * total, -first, -lean - own * weight, -bend, -first - cross, -lean - z * cross]
            return *(entries.sum(value) for value in each), np.ones(0)
        g1, g2, c11, c12, c22 = (np.zeros(z.size) for z in [weight] * 5)
        for (z, d1, d2), log in zip(terms, logs, strict=False):
            share = np.exp(log - total)
            lean, cross = z * d1, z * d2
            b = -lean - own
            g1 -= share * d1
            g2 += share * b
            # -sum_k r_k (H_k + g_k g_k') + g g' is exact for a mixture; the last term follows below.
            c11 -= share * (d2 + d1 * d1)
            c12 -= share * (d1 + cross - d1 * b)
            c22 -= share * (lean + z * cross + b * b)
        each = [total, g1, g2, c11 + g1 * g1, c12 + g1 * g2, c22 + g2 * g2]
        longer = np.ones(0)
        if presence is not None:
            longer = np.exp(np.logaddexp.reduce(logs[:-1]) - np.log(entries.presence(presence)))
        return *(entries.sum(weight * value) for value in each), longer

    def _slow(self, entries: Entries, prior: FleetPrior, theta: Vector, presence: Vector | None) -> Vector:
        """Return expected slow rounds, and slope and curvature of the likelihood in the factor's logarithm."""
        if len(prior.shifts) == 1 or not entries.owner.size:
            return np.zeros(3)
        scale = np.exp(theta[:, 1])
        terms, logs, total = self._mixture(entries, prior, theta, scale, presence)
        share = entries.weight * np.exp(logs[1] - total)
        inverse = (1.0 / scale)[entries.owner]
        return np.array([share.sum(), -(share * inverse) @ terms[1][1], -(share * inverse**2) @ terms[1][2]])


def _first_guess(sample: Sample, prior: FleetPrior) -> tuple[Vector, Vector]:
    """Start near the mean of what was seen, or where the fleet is; who was there longer than that, where it still was.

    The climb from further below is long, and where no client of the fleet has ever been, it has no slope.
    """
    count = sample.seen.sum(sample.seen.weight)
    mean = sample.seen.sum(sample.seen.weight * sample.seen.log_time) / np.maximum(count, 1e-300)
    theta = np.tile(np.asarray(prior.mean), (sample.n_clients, 1))
    pull = 0.1
    silent = sample.silent
    waited = -silent.min(np.where(silent.there, -silent.log_time, np.inf))
    theta[:, 0] = np.maximum(prior.mean[0], np.where(count > 0.0, -np.inf, waited))
    theta[:, 0] = np.where(count > 0.0, (count * mean + pull * prior.mean[0]) / (count + pull), theta[:, 0])
    # Who has never been seen is taken to be absent before it is taken to be slow: both can explain it, and clients that
    # have gone are more common.
    before, absent = prior.presence_counts(sample.gone)
    presence = before / (before + absent + np.where(count > 0.0, 0.0, silent.sum(silent.unsure)))
    return theta, presence
