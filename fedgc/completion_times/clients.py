"""The fitted clients: from a history to the probability that each of them takes longer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedgc.completion_times.base import Estimate, FleetPrior, Nodes, TimeFamily
from fedgc.completion_times.fixed_part import FixedPart
from fedgc.completion_times.fleet import mixture_survival
from fedgc.completion_times.history import History
from fedgc.completion_times.never_seen import mark_gone
from fedgc.completion_times.own_frequency import OwnFrequency
from fedgc.completion_times.presence import PersistentPresence, persistent_presence
from fedgc.completion_times.sample import Vector
from fedgc.completion_times.timeline import RoundSeen, Timeline
from fedgc.validation import check_vector

#: The fleet is learnt from at most so many of its clients: its parameters are then known to a few per cent, and an
#: update of 100,000 clients takes hardly longer than one of these.
_FLEET_CLIENTS = 400
#: Beyond these logarithms times are all the same.
_LARGEST_EXPONENT = 690.0
#: So many chances at once.
_ASKED_AT_ONCE = 4096
#: Below this share the own frequency is left out, and with it the time that it takes.
_LEAST_FREQUENCY = 1e-4
#: The fleet's distribution is looked up at so many points, so far beyond all times seen; it never ends altogether.
_POINTS, _BEYOND, _LEAST_LONGER = 600, 4.0, 1e-6


@dataclass(frozen=True, eq=False)
class FittedClients:
    """Every client's fit, and in the last row that of a client that nothing is known of.

    Attributes
    ----------
    family : TimeFamily
        The family of all clients.
    prior : FleetPrior
        The fleet.
    estimate : Estimate
        Maximum a posteriori parameters.
    nodes : Nodes
        What is still uncertain about them.
    fixed_seconds : ndarray, shape (n_clients + 1,)
        Seconds that do not depend on the load.
    likely_fixed : ndarray, shape (n_clients + 1, n_values)
        What they may be in a round.
    timeline : Timeline
        What was seen.
    persistent : PersistentPresence
        Who takes part in the coming round.
    frequency_share : float
        How much of a prediction is the client's own frequency, the rest being its model.
    """

    family: TimeFamily
    prior: FleetPrior
    estimate: Estimate
    nodes: Nodes
    fixed_seconds: Vector
    likely_fixed: Vector
    timeline: Timeline
    persistent: PersistentPresence
    frequency_share: float

    def in_time(self, rows: NDArray[np.intp], load: Vector, seconds: float | Vector) -> Vector:
        """Return the probability of each client to have done its load within `seconds`."""
        every = [self.in_time_after(rows, load, seconds - fixed) for fixed in self.likely_fixed[rows].T]
        return np.asarray(np.mean(every, axis=0))

    def in_time_after(self, rows: NDArray[np.intp], load: Vector, left: float | Vector) -> Vector:
        """Return the probability of each client to have done its load within `left` seconds after the fixed part."""
        return self.by_log_time(rows, log_seconds_per_shard(load, left))

    def by_log_time(self, rows: NDArray[np.intp], log_x: Vector) -> Vector:
        """Return the probability of each client to come within e^log_x seconds per shard."""
        if self.frequency_share < _LEAST_FREQUENCY:
            return self.presence[rows] * (1.0 - self.longer(rows, log_x))
        model, own = self.both(rows, log_x)
        return np.asarray((1.0 - self.frequency_share) * model + self.frequency_share * own)

    def both(self, rows: NDArray[np.intp], log_x: Vector) -> Vector:
        """Return the probability to come within e^log_x seconds per shard, by model and by own frequency, (2, n)."""
        model = self.presence[rows] * (1.0 - self.longer(rows, log_x))
        own = 1.0 - self._frequency.longer(rows, log_x, 1.0 - model, self._longer_than_ever[rows])
        return np.stack([model, np.where(log_x == -np.inf, 0.0, own)])

    def longer(self, rows: NDArray[np.intp], log_x: Vector) -> Vector:
        """Return the probability of each client, if it is there, to need more than e^log_x seconds per shard."""
        return _longer(self.family, self.nodes, self.prior, rows, log_x)

    def presence_with(self, rows: NDArray[np.intp]) -> Vector:
        """Return the probability of each client to come however long one waits."""
        return self.in_time_after(rows, np.zeros(rows.size), np.inf)

    def after(self, seen: RoundSeen) -> FittedClients:
        """Return the same clients after one more round: only who is there has changed."""
        longer = self.longer(seen.rows, seen.log_time)
        persistent = self.persistent.after(seen.rows, seen.censored & ~seen.there, longer)
        later = replace(self, persistent=persistent)
        later.__dict__.update(_frequency=self._frequency)  # of the rounds before
        return later

    @cached_property
    def presence(self) -> Vector:
        """Probability of each client to take part in the coming round by its model, (n_clients + 1,)."""
        return self.persistent.prob

    @cached_property
    def _frequency(self) -> OwnFrequency:
        times = self.timeline.log_time[self.timeline.used]
        low, high = (times.min(), times.max()) if times.size else (0.0, 0.0)
        grid = np.linspace(low - _BEYOND, high + _BEYOND, _POINTS)
        unknown = np.full(_POINTS, self.fixed_seconds.size - 1)
        fleet = 1.0 - self.presence[unknown] * (1.0 - self.longer(unknown, grid))
        return OwnFrequency.of(self.timeline, grid, np.maximum(fleet, _LEAST_LONGER))

    @cached_property
    def _longer_than_ever(self) -> Vector:
        rows = np.arange(self.fixed_seconds.size)
        return 1.0 - self.presence * (1.0 - self.longer(rows, self._frequency.last))


def _longer(family: TimeFamily, nodes: Nodes, prior: FleetPrior, rows: NDArray[np.intp], log_x: Vector) -> Vector:
    x = np.exp(np.clip(log_x, -_LARGEST_EXPONENT, _LARGEST_EXPONENT))
    longer = mixture_survival(family, nodes.take(rows), prior, x)
    return np.where(log_x == -np.inf, 1.0, np.where(log_x == np.inf, 0.0, longer))


def fit_clients(
    family: TimeFamily, prior: FleetPrior, known: Timeline, fixed: FixedPart, frequency_share: float
) -> FittedClients:
    """Return the fits of all clients and of one more."""
    timeline = known.with_unknown()
    sample = mark_gone(family, timeline.sample(), prior)
    estimate = family.estimate(sample, prior)
    nodes = family.posterior(sample, prior, estimate)
    longer = np.ones(timeline.log_time.shape)
    rows, cells = np.nonzero(timeline.unsure)
    longer[rows, cells] = _longer(family, nodes, prior, rows, timeline.log_time[rows, cells])
    return FittedClients(
        family,
        prior,
        estimate,
        nodes,
        np.append(fixed.seconds, fixed.fleet),
        fixed.likely,
        timeline,
        persistent_presence(timeline, prior, estimate, sample.gone, longer),
        frequency_share,
    )


def fleet_rows(history: History) -> NDArray[np.intp]:
    """Return the rows of the clients that the fleet is learnt from, evenly spaced by node id."""
    n_clients = history.n_clients
    return np.unique(np.linspace(0, n_clients - 1, min(n_clients, _FLEET_CLIENTS)).astype(np.intp))


def log_seconds_per_shard(load: Vector, left: float | Vector) -> Vector:
    """Return the logarithm of the seconds per shard that are left, infinite for no load and -infinite for no time."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        per_shard = np.where(load > 0.0, np.maximum(left, 0.0) / load, np.where(left >= 0.0, np.inf, 0.0))
        return np.asarray(np.log(per_shard))


def chunks(n_asked: int, n_clients: int) -> list[slice]:
    """Return parts of `n_asked` questions about every client that are answered at once.

    Of a small fleet that is many, so that little time goes into calls; of a large one it is one at a time, so that
    temporaries stay small.
    """
    at_once = max(_ASKED_AT_ONCE // max(n_clients, 1), 1)
    return [slice(first, min(first + at_once, n_asked)) for first in range(0, n_asked, at_once)]


def check_loads(load: ArrayLike, n_clients: int) -> Vector:
    """Return one load of at least 0 per client, or raise ValueError."""
    given = np.asarray(load, dtype=np.float64)
    each = np.full(n_clients, float(given)) if given.ndim == 0 else given
    return check_vector("load", each, length=n_clients, low=0.0, who="client")


def check_seconds(name: str, value: float) -> float:
    """Return a time of at least 0 seconds that may be infinite, or raise ValueError."""
    if not value >= 0.0:
        raise ValueError(f"{name} must be at least 0; got {value!r}")
    return float(value)
