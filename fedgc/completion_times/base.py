"""What a family of completion times is: seconds per shard of a client, given the fleet it belongs to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from fedgc.completion_times.sample import Sample, Vector

#: Parameters: arrays or numbers.
Floats = Vector | float
#: Slow rounds that are rarer than this do not matter to any probability, and cost time.
LEAST_SLOW = 2e-3
#: Repetitions of presence and what a silent round is evidence of, given the times.
_PRESENCE_STEPS = 8


@dataclass(frozen=True)
class FleetPrior:
    """What the fleet says about a client before its own rounds are looked at.

    Attributes
    ----------
    mean, spread : tuple of two floats
        Mean and standard deviation over clients of a family's two coordinates, see :class:`TimeFamily`.
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
        return Nodes(self.first[index], self.second[index], self.weight[index])


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


def silent_presence(sample: Sample, prior: FleetPrior, presence: Vector, longer: Vector) -> tuple[Vector, Vector]:
    """Return each client's presence and expected rounds present, given P(X > bound) of each silent entry.

    Notes
    -----
    A silent round weighs ``a S / (1 - a + a S)`` as a round with the client present, a being its presence and S the
    probability that it takes longer (a mixture-cure model). Taking every silent round for slowness would turn absence
    into a heavy tail; taking it for absence would turn slowness into absence. The presence is the posterior mean given
    these weights, and the weights follow from the presence; a few repetitions settle the two.
    """
    silent = sample.silent
    came = sample.seen.sum(sample.seen.weight)
    rounds = prior.present + prior.absent + came + silent.sum(silent.weight)
    present = came
    for _ in range(_PRESENCE_STEPS):
        own = silent.presence(presence)
        there = own * longer / (1.0 - own + own * longer)
        present = came + silent.sum(silent.weight * there)
        presence = (prior.present + present) / rounds
    return presence, present
