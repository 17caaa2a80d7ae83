"""Clients' chances looked up in tables: what a plan asks hundreds of times, of the same clients."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from fedgc.completion_times.clients import FittedClients, log_seconds_per_shard
from fedgc.completion_times.sample import Vector

#: Points of a client's table. They lie evenly in the logarithm of the time, between these quantiles of all that its
#: parameters may be, of usual rounds and of slow ones.
_POINTS, _TAIL = 160, 1e-3
#: So many chances at once, so that temporaries stay in the processor's cache.
_AT_ONCE = 4096
#: Tables are of times per shard between e^-100 and e^100 seconds, as observations are.
_LARGEST_LOG = 100.0


@dataclass(frozen=True, eq=False)
class TabulatedClients(FittedClients):
    """Fitted clients, some of which have a table of their chances; only these are asked about.

    Attributes
    ----------
    table_of : ndarray of int, shape (n_clients + 1,)
        Number of each client's table, `n_tables` for those without one.
    low, step : ndarray, shape (n_tables,)
        Logarithm of the seconds per shard of each table's first point, and between two points.
    chance : ndarray, shape (n_tables, n_points + 2)
        Probability to come by the outer point before the table, by each point, and to come at all.

    Notes
    -----
    Between points it is a line, and from the table's ends to the outer points, each as far away as the table is long:
    little happens there, and how soon does not matter. The search for a deadline asks for a thousand instants, each for
    all values that a fixed part may have: the tables cost as much as a few dozen of these.
    """

    table_of: NDArray[np.intp]
    low: Vector
    step: Vector
    chance: Vector

    @classmethod
    def of(cls, clients: FittedClients, rows: NDArray[np.intp]) -> TabulatedClients:
        """Return the clients with tables of those in `rows`."""
        chosen = np.unique(rows)
        table_of = np.full(clients.fixed_seconds.size, chosen.size)  # no table: an index error if it is asked about
        table_of[chosen] = np.arange(chosen.size)
        low, high = _range(clients, chosen)
        step = (high - low) / (_POINTS - 1)
        chance = np.empty((chosen.size, _POINTS + 2))
        at_once = max(_AT_ONCE // _POINTS, 1)
        for first in range(0, chosen.size, at_once):
            part = slice(first, min(first + at_once, chosen.size))
            log_x = low[part, None] + step[part, None] * np.arange(_POINTS)
            own = np.repeat(chosen[part], _POINTS)
            chance[part, 1:-1] = clients.by_log_time(own, log_x.ravel()).reshape(log_x.shape)
        chance[:, 0] = clients.by_log_time(chosen, low - _POINTS * step)
        chance[:, -1] = clients.presence_with(chosen)
        np.maximum.accumulate(chance, axis=1, out=chance)
        known = {field.name: getattr(clients, field.name) for field in fields(FittedClients)}
        return cls(**known, table_of=table_of, low=low, step=step, chance=chance)

    def in_time(self, rows: NDArray[np.intp], load: Vector, seconds: float | Vector) -> Vector:
        """Return the probability of each client to have done its load within `seconds`."""
        left = np.reshape(seconds, (-1, 1)) - self.likely_fixed[rows]
        log_x = log_seconds_per_shard(load[:, None], left)
        return np.asarray(self._look_up(self.table_of[rows][:, None], log_x).mean(axis=1))

    def by_log_time(self, rows: NDArray[np.intp], log_x: Vector) -> Vector:
        """Return the probability of each client to come within e^log_x seconds per shard."""
        return self._look_up(self.table_of[rows], log_x)

    def _look_up(self, table: NDArray[np.intp], log_x: Vector) -> Vector:
        place = (log_x - self.low[table]) / self.step[table]
        # From the outer points to the table it is as far as through the table.
        beyond = np.where(place < 0.0, place, np.maximum(place - (_POINTS - 1.0), 0.0)) / _POINTS
        place = np.clip(np.clip(place, 0.0, _POINTS - 1.0) + 1.0 + beyond, 0.0, _POINTS + 1.0)
        point = np.minimum(place.astype(np.intp), _POINTS)
        here = self.chance[table, point]
        found = here + (place - point) * (self.chance[table, point + 1] - here)
        return np.where(log_x == -np.inf, 0.0, found)


def _range(clients: FittedClients, rows: NDArray[np.intp]) -> tuple[Vector, Vector]:
    """Return the logarithms of the shortest and longest seconds per shard in the tables."""
    nodes, slowest = clients.nodes.take(rows), max(factor for _, factor in clients.prior.shifts)
    ends = (clients.family.quantile(tail, nodes.first, nodes.second) for tail in (_TAIL, 1.0 - _TAIL))
    with np.errstate(divide="ignore"):
        low, high = (np.clip(np.log(end), -_LARGEST_LOG, _LARGEST_LOG) for end in ends)
    least, most = low.min(axis=1), high.max(axis=1) + slowest
    # Frequencies fall at times that were seen, wherever the model has them.
    used, times = clients.timeline.used[rows], clients.timeline.log_time[rows]
    least = np.minimum(least, np.where(used, times, np.inf).min(axis=1, initial=np.inf))
    most = np.maximum(most, np.where(used, times, -np.inf).max(axis=1, initial=-np.inf))
    return least, np.maximum(most, least + 1e-3)
