"""Sessions: clients that come and go in virtual time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fedgc.fleets.keys import Purpose
from fedgc.fleets.parameters import Vector
from fedgc.fleets.renewal import AlternatingProcess, Periods, alternate


def client_sessions(seed: int, parameters: Mapping[str, Vector]) -> AlternatingProcess:
    """Return the sessions of every client, keyed by client.

    Parameters
    ----------
    seed : int
        Seed of the fleet.
    parameters : mapping of str to ndarray, shape (n_clients,)
        `session_on`, `session_off` (mean seconds) and `session_jitter` J: lengths are uniform within (1 +- J) x mean.

    Notes
    -----
    The process is stationary: a client is on at instant 0 with probability on / (on + off). The period that instant 0
    falls into is longer than most, its length L having density proportional to its own length, and what is left of it
    is uniform on (0, L).
    """

    def periods(client: int, draws: Vector) -> Periods:
        on, off, jitter = (float(parameters[name][client]) for name in ("session_on", "session_off", "session_jitter"))
        on_first = bool(draws[0] < on / (on + off))
        low, high = ((1.0 + sign * jitter) * (on if on_first else off) for sign in (-1.0, 1.0))
        length = np.sqrt(low**2 + draws[1] * (high**2 - low**2))
        around = 1.0 + jitter * (2.0 * draws[3:] - 1.0)
        return alternate(on_first, float(draws[2] * length), on * around, off * around)

    return AlternatingProcess(seed, Purpose.SESSIONS, periods)


def session_ends(own: Mapping[str, Any]) -> tuple[Vector, Vector]:
    """Return the shortest and the longest session in seconds, infinite for clients without sessions."""
    on, jitter = own["session_on"], own["session_jitter"]
    with np.errstate(invalid="ignore"):
        return np.where(np.isinf(on), np.inf, (1.0 - jitter) * on), np.where(np.isinf(on), np.inf, (1.0 + jitter) * on)


def session_stay_prob(own: Mapping[str, Any]) -> Callable[[Vector], Vector]:
    """Return the stationary probability to be on and to stay on, as a function of seconds.

    Parameters
    ----------
    own : mapping of str to array_like
        `session_on`, `session_off`, `session_jitter`, broadcast against the seconds, which are finite and at least 0.

    Notes
    -----
    With m = session_on and lengths uniform on (a, b) = (m (1 - J), m (1 + J)), the probability is the share of time on,
    m / (m + off), times the tail of what is left of a running session, the integral of P(length > x) over x > t,
    divided by m: ``1 - t / m`` up to a, ``1 - t / m + (t - a)^2 / (2 m (b - a))`` from there to b, and 0 beyond.

    Examples
    --------
    >>> stay_prob = session_stay_prob({"session_on": 300.0, "session_off": 600.0, "session_jitter": 0.2})
    >>> stay_prob(np.array([0.0, 150.0, 300.0, 360.0])).round(4).tolist()
    [0.3333, 0.1667, 0.0167, 0.0]
    """
    on = np.asarray(own["session_on"])
    shortest, longest = session_ends(own)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(np.isinf(on), 1.0, on / (on + own["session_off"]))
        bend = np.where(longest > shortest, 0.5 / (on * (longest - shortest)), 0.0)

    def prob(seconds: Vector) -> Vector:
        within = np.minimum(seconds, longest)
        tail: Vector = share * (1.0 - within / on + bend * np.maximum(within - shortest, 0.0) ** 2)
        return np.maximum(tail, 0.0)

    return prob
