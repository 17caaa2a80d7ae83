"""Processes in virtual time that switch between on and off."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedgc.fleets.keys import Purpose, generator
from fedgc.fleets.parameters import Vector


class Periods(NamedTuple):
    """The first periods of a process: whether it is on at instant 0, and the seconds that each lasts."""

    on_first: bool
    seconds: Vector


#: From a key (a client or a site) and uniform draws to the periods; period i may only use the draws up to i + 2.
PeriodsOf = Callable[[int, Vector], Periods]

#: Draws that the state at instant 0 and the rest of its period take, in addition to one draw per later period.
EXTRA_DRAWS = 2


class AlternatingProcess:
    """An alternating renewal process per key, drawn as far as it is asked for.

    Parameters
    ----------
    seed : int
        Seed of the fleet.
    purpose : Purpose
        What switches; processes of different purposes are independent.
    periods_of : callable
        Lengths of the periods from uniform draws.

    Notes
    -----
    A process is keyed by (seed, key) and starts at instant 0, so that any order of asking gives the same answer. It is
    drawn from the start again whenever it has to reach further, over twice as many periods.

    Examples
    --------
    >>> def steady(key, draws):
    ...     return Periods(True, np.full(draws.size - EXTRA_DRAWS, 5.0))
    >>> clockwork = AlternatingProcess(0, Purpose.SESSIONS, steady)
    >>> clockwork.seconds_left(0, 3.0), clockwork.seconds_left(0, 7.0), clockwork.seconds_left(0, 10.5)
    (2.0, 0.0, 4.5)
    """

    def __init__(self, seed: int, purpose: Purpose, periods_of: PeriodsOf) -> None:
        self._seed = seed
        self._purpose = purpose
        self._periods_of = periods_of
        self._known: dict[int, tuple[bool, Vector]] = {}

    def seconds_left(self, key: int, now: float) -> float:
        """Return how long the process stays on from instant `now` on, 0 if it is off.

        Parameters
        ----------
        key : int
            Which process.
        now : float
            Virtual seconds since the start of the run.
        """
        on_first, switches = self._known.get(key) or self._draw(key, 30)
        while switches[-1] <= now:
            on_first, switches = self._draw(key, 2 * switches.size)
        passed = int(switches.searchsorted(now, side="right"))
        is_on = on_first if passed % 2 == 0 else not on_first
        return float(switches[passed]) - now if is_on else 0.0

    def is_on(self, key: int, instants: Vector) -> NDArray[np.bool_]:
        """Return whether the process is on at each instant, (n_instants,); instants in seconds since the start."""
        on_first, switches = self._known.get(key) or self._draw(key, 30)
        while switches[-1] <= instants.max():
            on_first, switches = self._draw(key, 2 * switches.size)
        return np.asarray((switches.searchsorted(instants, side="right") % 2 == 0) == on_first)

    def _draw(self, key: int, n_periods: int) -> tuple[bool, Vector]:
        draws = generator(self._seed, self._purpose, key).random(n_periods + EXTRA_DRAWS)
        periods = self._periods_of(key, draws)
        self._known[key] = (periods.on_first, np.cumsum(periods.seconds))
        return self._known[key]


def alternate(on_first: bool, first: float, on: Vector, off: Vector) -> Periods:
    """Return periods that alternate after a first one.

    Parameters
    ----------
    on_first : bool
        Whether the first period is on.
    first : float
        Seconds that are left of it at instant 0.
    on, off : ndarray, shape (n_periods - 1,)
        Seconds of each later period if it is on, and if it is off.
    """
    later_is_on = (np.arange(on.size) % 2 == 1) == on_first
    return Periods(on_first, np.concatenate([[first], np.where(later_is_on, on, off)]))
