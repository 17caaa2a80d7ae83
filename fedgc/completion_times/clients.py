"""The fitted clients: from a history to the probability that each of them takes longer."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedgc.completion_times.base import Estimate, FleetPrior, Nodes, TimeFamily
from fedgc.completion_times.fixed_part import FixedPart
from fedgc.completion_times.fleet import mixture_survival
from fedgc.completion_times.history import History
from fedgc.completion_times.never_seen import mark_gone
from fedgc.completion_times.sample import Sample, Vector
from fedgc.validation import check_vector

#: No time per shard is taken for shorter than this share of the whole round's time per shard.
_LEAST_SHARE = 1e-9
#: The fleet is learnt from at most so many of its clients: its parameters are then known to a few per cent, and an
#: update of 100,000 clients takes hardly longer than one of these.
_FLEET_CLIENTS = 400
#: Times per shard beyond e^100 seconds, or below e^-100, are taken for these: their squares still fit a float.
_LARGEST_LOG = 100.0


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
    """

    family: TimeFamily
    prior: FleetPrior
    estimate: Estimate
    nodes: Nodes
    fixed_seconds: Vector

    def longer(self, rows: NDArray[np.intp], load: Vector, seconds: float | Vector) -> Vector:
        """Return the probability of each client, if it takes part, to need more than `seconds` for its load."""
        left = seconds - self.fixed_seconds[rows]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            per_shard = np.where(load > 0.0, np.maximum(left, 0.0) / load, np.where(left >= 0.0, np.inf, 0.0))
        longer = mixture_survival(self.family, self.nodes.take(rows), self.prior, np.clip(per_shard, 1e-300, 1e300))
        return np.where(per_shard <= 0.0, 1.0, np.where(np.isinf(per_shard), 0.0, longer))


def fit_clients(family: TimeFamily, prior: FleetPrior, sample: Sample, fixed: FixedPart) -> FittedClients:
    """Return the fits of all clients of the sample and of one more."""
    size = sample.n_clients + 1
    seen, silent = (replace(part, n_clients=size) for part in (sample.seen, sample.silent))
    more = mark_gone(family, Sample(seen, silent, np.append(sample.gone, False)), prior)
    estimate = family.estimate(more, prior)
    nodes = family.posterior(more, prior, estimate)
    return FittedClients(family, prior, estimate, nodes, np.append(fixed.seconds, fixed.fleet))


def build_sample(
    history: History, weight: Vector, fixed_seconds: Vector, rows: NDArray[np.intp] | None = None
) -> Sample:
    """Return the seconds per shard of all clients or some `rows`, less each round's own or the client's fixed part."""
    index = np.arange(history.n_clients) if rows is None else rows
    seconds, told = history.seconds[index], history.fixed_seconds[index]
    fixed = np.where(np.isfinite(told), told, fixed_seconds[index, None])
    work = np.maximum(seconds - fixed, _LEAST_SHARE * seconds)
    log_time = np.clip(np.log(work) - np.log(history.shards[index]), -_LARGEST_LOG, _LARGEST_LOG)
    return Sample.build(log_time, weight[index], history.censored[index], history.there[index])


def fleet_rows(history: History) -> NDArray[np.intp]:
    """Return the rows of the clients that the fleet is learnt from, evenly spaced by node id."""
    n_clients = history.n_clients
    return np.unique(np.linspace(0, n_clients - 1, min(n_clients, _FLEET_CLIENTS)).astype(np.intp))


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
