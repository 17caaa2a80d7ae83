"""Clients' chances looked up in tables: what a plan asks hundreds of times, of the same clients."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from fedgc.completion_times.clients import FittedClients, log_seconds_per_shard
from fedgc.completion_times.sample import Vector

#: Points of the middle of a client's table. They lie evenly in the logarithm of the time, between these quantiles of
#: all that its parameters may be, of usual rounds and of slow ones.
_POINTS, _TAIL = 128, 1e-3
#: Points on either side of that, as far as the fleet's times reach, since a client may come to be like the fleet.
_OUTER = 24
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
        Logarithm of the seconds per shard of the first point of each table's middle, and between two points of it.
    step_before, step_after : ndarray, shape (n_tables,)
        The same distance between two points before the middle, and after it.
    chance : ndarray, shape (n_tables, 2 n_outer + n_points)
        Probability to come by each point; by the last, to come at all.

    Notes
    -----
    Between points it is a line. Of a client whose times are all alike the middle is as narrow as they are, but how
    often it has come by some time is believed only as far as rounds can show, and the rest is the fleet's. The search
    for a deadline asks for a thousand instants, each for all values that a fixed part may have: the tables cost as much
    as a few dozen of these.
    """

    table_of: NDArray[np.intp]
    low: Vector
    step: Vector
    step_before: Vector
    step_after: Vector
    chance: Vector

    @classmethod
    def of(cls, clients: FittedClients, rows: NDArray[np.intp]) -> TabulatedClients:
        """Return the clients with tables of those in `rows`."""
        chosen = np.unique(rows)
        table_of = np.full(clients.fixed_seconds.size, chosen.size)  # no table: an index error if it is asked about
        table_of[chosen] = np.arange(chosen.size)
        low, high = _range(clients, chosen)
        fleet = _range(clients, np.array([clients.fixed_seconds.size - 1]))
        length = high - low
        before = (low - np.minimum(low - length, fleet[0])) / _OUTER
        after = (np.maximum(high + length, fleet[1]) - high) / _OUTER
        step = length / (_POINTS - 1)
        beyond, inside = np.arange(1, _OUTER + 1), np.arange(_POINTS)
        chance = np.empty((chosen.size, _POINTS + 2 * _OUTER))
        at_once = max(_AT_ONCE // chance.shape[1], 1)
        for first in range(0, chosen.size, at_once):
            part = slice(first, min(first + at_once, chosen.size))
            log_x = np.hstack(
                [
                    low[part, None] - before[part, None] * beyond[::-1],
                    low[part, None] + step[part, None] * inside,
                    high[part, None] + after[part, None] * beyond,
                ]
            )
            own = np.repeat(chosen[part], chance.shape[1])
            chance[part] = clients.by_log_time(own, log_x.ravel()).reshape(log_x.shape)
        chance[:, -1] = clients.presence_with(chosen)
        np.maximum.accumulate(chance, axis=1, out=chance)
        known = {field.name: getattr(clients, field.name) for field in fields(FittedClients)}
        return cls(**known, table_of=table_of, low=low, step=step, step_before=before, step_after=after, chance=chance)

    def in_time(self, rows: NDArray[np.intp], load: Vector, seconds: float | Vector) -> Vector:
        """Return the probability of each client to have done its load within `seconds`."""
        left = np.reshape(seconds, (-1, 1)) - self.likely_fixed[rows]
        log_x = log_seconds_per_shard(load[:, None], left)
        return np.asarray(self._look_up(self.table_of[rows][:, None], log_x).mean(axis=1))

    def by_log_time(self, rows: NDArray[np.intp], log_x: Vector) -> Vector:
        """Return the probability of each client to come within e^log_x seconds per shard."""
        return self._look_up(self.table_of[rows], log_x)

    def _look_up(self, table: NDArray[np.intp], log_x: Vector) -> Vector:
        away = log_x - self.low[table]
        inside = np.clip(away, 0.0, (_POINTS - 1.0) * self.step[table])
        beyond = away - inside
        outside = np.clip(
            beyond / np.where(beyond < 0.0, self.step_before[table], self.step_after[table]), -_OUTER, _OUTER
        )
        place = _OUTER + inside / self.step[table] + outside
        point = np.minimum(place.astype(np.intp), _POINTS + 2 * _OUTER - 2)
        here = self.chance[table, point]
        found = here + (place - point) * (self.chance[table, point + 1] - here)
        return np.where(log_x == -np.inf, 0.0, found)


def _range(clients: FittedClients, rows: NDArray[np.intp]) -> tuple[Vector, Vector]:
    """Return the logarithms of the shortest and longest seconds per shard of the tables' middles."""
    nodes, slowest = clients.nodes.take(rows), max(factor for _, factor in clients.prior.shifts)
    ends = (clients.family.quantile(tail, nodes.first, nodes.second) for tail in (_TAIL, 1.0 - _TAIL))
    with np.errstate(divide="ignore"):
        low, high = (np.clip(np.log(end), -_LARGEST_LOG, _LARGEST_LOG) for end in ends)
    least, most = low.min(axis=1), high.max(axis=1) + slowest
    # Frequencies fall at times that were seen, wherever the model has them.
    used, times = clients.timeline.used[rows], clients.timeline.log_time[rows]
    least = np.minimum(least, np.where(used, times, np.inf).min(axis=1, initial=np.inf))
    most = np.maximum(most, np.where(used, times, -np.inf).max(axis=1, initial=-np.inf))
    most = np.maximum(most, least + 1e-3)
    # One point before anything happens: of a client whose times are all alike, many come at the least of them, and the
    # line from the outer point must not begin to rise towards that.
    return least - (most - least) / (_POINTS - 2), most
