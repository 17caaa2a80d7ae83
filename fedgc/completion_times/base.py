"""What a family of completion times is: seconds per shard of a client, given the fleet it belongs to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedgc.completion_times.sample import Sample, Vector

#: Parameters: arrays or numbers.
Floats = Vector | float
#: A share of clients is unlike the fleet: their log time differs by so much more, a factor of seven either way. A
#: normal law alone would hold a client that takes twenty times as long near the others for hundreds of rounds.
ODD_SHARE, _ODD_SPREAD = 0.05, 2.0
#: Pseudo-counts of the presence of a client that seems to have gone: anything may be.
_GONE = (0.5, 0.5)
#: Slow rounds that are rarer than this do not matter to any probability, and cost time.
LEAST_SLOW = 2e-3
#: Newton steps to the presence at most, and the size of one after which no more are needed.
_PRESENCE_STEPS, _PRESENCE_TOLERANCE = 10, 1e-4
_TINY, _ALMOST_SURE = float(np.finfo(np.float64).tiny), float(np.nextafter(1.0, 0.0))


class ClientKind(NamedTuple):
    """A share of the clients, and the standard deviation of their first coordinate."""

    share: float
    spread: float


@dataclass(frozen=True)
class FleetPrior:
    """What the fleet says about a client before its own rounds are looked at.

    Attributes
    ----------
    mean, spread : tuple of two floats
        Mean and standard deviation over clients of a family's two coordinates, see :class:`TimeFamily`; those of the
        first leave out the few clients that are unlike the fleet.
    present, absent : float
        Pseudo-counts of the Beta prior of the probability to take part in a round.
    slow_prob, slow_factor : float
        In a share `slow_prob` of all rounds a client takes `slow_factor` times as long.
    """

    mean: tuple[float, float]
    spread: tuple[float, float]
    present: float = 2.0
    absent: float = 0.2
    slow_prob: float = 0.0
    slow_factor: float = 4.0

    @property
    def shifts(self) -> list[tuple[float, float]]:
        """Logarithms of (probability, factor) of a usual and, if there are any, of a slow round."""
        usual = (float(np.log1p(-self.slow_prob)), 0.0)
        if self.slow_prob < LEAST_SLOW:
            return [usual]
        return [usual, (float(np.log(self.slow_prob)), float(np.log(self.slow_factor)))]

    def presence_counts(self, gone: NDArray[np.bool_]) -> tuple[Vector, Vector]:
        """Return the pseudo-counts of rounds present and absent of clients, of which some seem to have gone."""
        return np.where(gone, _GONE[0], self.present), np.where(gone, _GONE[1], self.absent)

    @property
    def kinds(self) -> tuple[ClientKind, ClientKind]:
        """The usual clients, and the few that are unlike them."""
        wide = float(np.hypot(self.spread[0], _ODD_SPREAD))
        return ClientKind(1.0 - ODD_SHARE, self.spread[0]), ClientKind(ODD_SHARE, wide)

    def location(self, first: Vector) -> Location:
        """Return the prior of first coordinates: a normal for usual clients, and a wide one for a few."""
        away = first - self.mean[0]
        usual, odd = (kind.spread**-2 for kind in self.kinds)
        logs = [np.log(kind.share / kind.spread) - 0.5 * (away / kind.spread) ** 2 for kind in self.kinds]
        value = np.logaddexp(*logs)
        share = np.exp(logs[1] - value)
        pull = (1.0 - share) * usual + share * odd
        bend = share * (1.0 - share) * ((usual - odd) * away) ** 2
        return Location(value, -pull * away, pull - bend, pull / usual)


@dataclass(frozen=True, eq=False)
class Location:
    """What the fleet says of a client's first coordinate.

    Attributes
    ----------
    value, slope, curvature : ndarray, shape (n_clients,)
        Log density up to a constant, its derivative, and the negative second one, which may be below 0.
    usual : ndarray, shape (n_clients,)
        How much a client counts when mean and spread of usual clients are learnt, near 0 for one unlike them.
    """

    value: Vector
    slope: Vector
    curvature: Vector
    usual: Vector


@dataclass(frozen=True, eq=False)
class Estimate:
    """Maximum a posteriori parameters of every client.

    Attributes
    ----------
    coordinates : ndarray, shape (n_clients, 2)
        The family's two coordinates.
    covariance : ndarray, shape (n_clients, 3)
        Posterior variance of the first, covariance, variance of the second.
    presence : ndarray, shape (n_clients,)
        Posterior mean of the probability to take part in a round.
    present_weight : ndarray, shape (n_clients,)
        Expected number of rounds with the client present.
    slow_weight : float
        Expected number of slow rounds in the whole sample.
    log_factor_step : float
        By how much the logarithm of the slow rounds' factor should change.
    """

    coordinates: Vector
    covariance: Vector
    presence: Vector
    present_weight: Vector
    slow_weight: float
    log_factor_step: float


@dataclass(frozen=True, eq=False)
class Nodes:
    """A client's posterior as a few weighted parameter pairs, each of shape (n_clients, n_nodes)."""

    first: Vector
    second: Vector
    weight: Vector

    def take(self, rows: ArrayLike) -> Nodes:
        """Return the nodes of some clients."""
        index = np.asarray(rows)
        return Nodes(*(_rows_of(table, index) for table in (self.first, self.second, self.weight)))


def _rows_of(table: Vector, index: NDArray[np.intp]) -> Vector:
    """Return rows of a table; of one whose rows are all the same in memory no copies are made."""
    if table.shape[0] and table.strides[0] == 0:
        return np.broadcast_to(table[0], (index.size, table.shape[1]))
    return table.take(index, axis=0)


class TimeFamily(ABC):
    """Distributions of the seconds per shard x > 0 with two parameters, vectorised over clients.

    Every family has two coordinates that can be any real numbers: the logarithm of a typical x, which differs much
    between clients, and the logarithm of a relative spread, which differs little. The fleet's prior is normal in them.

    To add a family, subclass this in a file of its own and add it to ``FAMILIES`` in
    ``fedgc/completion_times/families.py``.
    """

    name: ClassVar[str]
    #: Relative spread that is assumed where nothing is known.
    default_spread: ClassVar[float] = 0.4

    @abstractmethod
    def log_density(self, x: ArrayLike, first: Floats, second: Floats) -> Vector:
        """Return the logarithm of the density at `x` seconds per shard."""

    @abstractmethod
    def log_survival(self, x: ArrayLike, first: Floats, second: Floats) -> Vector:
        """Return the logarithm of P(X > x)."""

    @abstractmethod
    def quantile(self, probability: ArrayLike, first: Floats, second: Floats) -> Vector:
        """Return the seconds per shard that are not exceeded with `probability`."""

    @abstractmethod
    def natural(self, coordinates: Vector) -> tuple[Vector, Vector]:
        """Return the two parameters, as the other methods take them, of coordinates (n, 2)."""

    @abstractmethod
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
        """Fit every client of the sample.

        Parameters
        ----------
        sample : Sample
            What was seen.
        prior : FleetPrior
            The fleet.
        start : Estimate, optional
            Where to begin.
        max_steps : int
            Number of iterations at most.
        tolerance : float
            Enough once the steps that remain are this small, squared and relative to the posterior's width.
        find_slow : bool
            Whether to count slow rounds as well.
        """

    @abstractmethod
    def posterior(self, sample: Sample, prior: FleetPrior, estimate: Estimate) -> Nodes:
        """Return parameter pairs that stand for what is still uncertain about each client."""

    def survival(self, x: ArrayLike, first: Floats, second: Floats) -> Vector:
        """Return P(X > x)."""
        return np.exp(self.log_survival(x, first, second))

    def cdf(self, x: ArrayLike, first: Floats, second: Floats) -> Vector:
        """Return P(X <= x)."""
        return -np.expm1(self.log_survival(x, first, second))


def silent_presence(sample: Sample, prior: FleetPrior, longer: Vector) -> tuple[Vector, Vector]:
    """Return each client's presence and expected rounds present, given P(X > bound) of each silent entry.

    Notes
    -----
    A silent round weighs ``a S / (1 - a + a S)`` as a round with the client present, a being its presence and S the
    probability that it takes longer (a mixture-cure model). Taking every silent round for slowness would turn absence
    into a heavy tail; taking it for absence would turn slowness into absence. The presence is the posterior mean given
    these weights, and the weights follow from the presence: the two meet at the root of a function that falls and is
    convex in the presence, to which Newton's steps from below rise. Repeating the two, the alternative, takes hundreds
    of repetitions where a client of a fleet that hardly ever misses has always missed.
    """
    silent = sample.silent
    came = sample.seen.sum(sample.seen.weight) + silent.sum(silent.weight * silent.there)
    unsure = silent.unsure
    before, absent = prior.presence_counts(sample.gone)
    rounds = before + absent + came + silent.sum(unsure)
    # As if it had been absent in all of them: never more than the root.
    presence, present = (before + came) / rounds, came
    for _ in range(_PRESENCE_STEPS if unsure.size else 0):
        own = presence[silent.owner]
        quiet = np.maximum(1.0 - own + own * longer, _TINY)
        present = came + silent.sum(unsure * own * longer / quiet)
        slope = silent.sum(unsure * longer / quiet**2) - rounds
        rise = np.maximum((before + present - rounds * presence) / np.maximum(-slope, _TINY), 0.0)
        presence = np.minimum(presence + rise, 1.0 - absent / rounds)
        if rise.max(initial=0.0) < _PRESENCE_TOLERANCE:
            break
    return np.minimum(presence, _ALMOST_SURE), present
