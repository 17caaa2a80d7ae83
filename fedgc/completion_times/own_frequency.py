"""Each client's own past times as a distribution, whatever their law."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedgc.completion_times.sample import Vector
from fedgc.completion_times.timeline import Timeline

#: The fleet counts for as much as so many rounds of the client's own.
_FLEET_ROUNDS = 3.0
#: Times that differ by less are the same, in their logarithm: waits until the same deadline.
_SAME = 1e-9
#: No chance is smaller, so that ratios of two are numbers.
_TINY = 1e-12


@dataclass(frozen=True, eq=False)
class OwnFrequency:
    """How often each client took longer than any seconds per shard, absent or slow.

    Attributes
    ----------
    log_time : ndarray, shape (n_clients, n_cells)
        What was seen and what was waited for, increasing; infinite in unused cells. Their number is one below a power
        of two.
    at_risk : ndarray, shape (n_clients, window + 1)
        Weight of the rounds that lasted for at least as long; 0 after the last.
    left, before : ndarray, shape (n_clients, window + 1)
        Between the cell before and this one the frequency is ``left (c S_0 + Y) / before``, see below.
    last : ndarray, shape (n_clients,)
        The last of each client's times and waits, -infinite without any.
    grid, grid_longer : ndarray, shape (n_points,)
        Logarithms of seconds per shard, and the probability of a client of the fleet to take longer.

    Notes
    -----
    The posterior mean of a survival function with a Dirichlet process prior of strength c around the fleet's, S_0,
    under right-censoring (V. Susarla, J. Van Ryzin, J. Am. Stat. Assoc. 71, 1976): between two times u < v with Y
    rounds at risk it falls by ``(c S_0(v) + Y) / (c S_0(u) + Y)``, and at a time seen, of weight d, by
    ``(c S_0(v) + Y - d) / (c S_0(v) + Y)``. At a deadline that was the same in every round it is the share of rounds
    missed, with c rounds of the fleet's, and for c = 0 the product-limit estimate. Beyond the longest wait the client
    itself has shown nothing, and its model goes on.
    """

    log_time: Vector
    at_risk: Vector
    left: Vector
    before: Vector
    last: Vector
    grid: Vector
    grid_longer: Vector

    @classmethod
    def of(cls, timeline: Timeline, grid: Vector, grid_longer: Vector) -> OwnFrequency:
        """Return those of all clients; the grid has the fleet's distribution."""
        used = timeline.used
        times = np.where(used, timeline.log_time, np.inf)
        order = np.lexsort((timeline.censored, times), axis=1)  # waits after the times that equal them
        tables = times, timeline.weight, timeline.censored
        times, weight, censored = (np.take_along_axis(table, order, axis=1) for table in tables)
        at_risk = np.cumsum(weight[:, ::-1], axis=1)[:, ::-1]
        last = np.where(np.isfinite(times), times, -np.inf).max(axis=1, initial=-np.inf)
        fleet, one = _FLEET_ROUNDS * np.interp(times, grid, grid_longer), np.ones((len(times), 1))
        before = np.append(_FLEET_ROUNDS * one, fleet, axis=1) + np.append(at_risk, 0.0 * one, axis=1) + _TINY
        # Worked out once, so that a chance costs a look-up instead of a product over the window.
        steps = (fleet + at_risk - np.where(censored, 0.0, weight)) / before[:, :-1]
        left = np.append(one, np.cumprod(steps, axis=1), axis=1)
        most = int(used.sum(axis=1).max(initial=0))
        cells = np.full((len(times), (1 << most.bit_length()) - 1), np.inf)
        cells[:, :most] = times[:, :most]
        return cls(cells, np.append(at_risk, 0.0 * one, axis=1), left, before, last, grid, grid_longer)

    def longer(self, rows: NDArray[np.intp], log_x: Vector, model: ArrayLike, model_last: ArrayLike) -> Vector:
        """Return the probability of each client to be absent or to take longer than e^log_x seconds per shard, (n,).

        Parameters
        ----------
        rows : ndarray of int, shape (n,)
            The clients.
        log_x : ndarray, shape (n,)
            Logarithm of the seconds per shard.
        model, model_last : array_like, shape (n,)
            The same as the client's model has it, for `log_x` and for the client's longest wait.
        """
        last = self.last.take(rows)
        at = np.minimum(log_x, last)
        cell = rows * self.left.shape[1] + self._cells_until(rows, at + _SAME)
        here = _FLEET_ROUNDS * np.interp(at, self.grid, self.grid_longer) + self.at_risk.take(cell)
        total: Vector = self.left.take(cell) * here / self.before.take(cell)
        return np.where(log_x > last, total * np.asarray(model) / np.maximum(model_last, _TINY), total)

    def _cells_until(self, rows: NDArray[np.intp], log_x: Vector) -> NDArray[np.intp]:
        """Return how many of each client's times and waits are no longer than this, (n,), by bisection."""
        n_cells = self.log_time.shape[1]
        before, found = rows * n_cells - 1, np.zeros(rows.size, dtype=np.intp)
        step = (n_cells + 1) // 2
        while step:
            found += step * (self.log_time.take(before + (found + step)) <= log_x)
            step //= 2
        return found
