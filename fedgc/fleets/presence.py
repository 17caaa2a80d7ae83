"""Presence: whether a client is there when a message comes, and how long it stays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedgc.fleets.keys import Purpose, generator
from fedgc.fleets.markov import PersistentStates
from fedgc.fleets.outages import site_outages, site_stay_prob
from fedgc.fleets.parameters import Vector
from fedgc.fleets.sessions import client_sessions, session_stay_prob

#: Parameters that :func:`stay_prob` needs.
STAY_PARAMETERS = ("session_on", "session_off", "session_jitter", "site", "outage_fraction", "outage_seconds")

_LONGEST = 1e300


class Presence:
    """Everything that keeps the clients of a fleet from answering, save being late.

    Parameters
    ----------
    seed : int
        Seed of the fleet.
    parameters : mapping of str to ndarray, shape (n_clients,)
        The parameters of every client.

    Raises
    ------
    ValueError
        If clients of one site have outages of their own.

    Notes
    -----
    A client answers if it has not left for good, is not absent in the round, and neither its session nor its site ends
    before its work does. The four are independent of each other.

    Examples
    --------
    >>> from fedgc.fleets.parameters import COMMON
    >>> given = {name: np.full(2, spec.default) for name, spec in COMMON.items()}
    >>> presence = Presence(1, {**given, "leave_after": np.array([3.0, np.inf])})
    >>> [presence.seconds_left(client, 5, now=0.0, draw=0.5) for client in (0, 1)]
    [0.0, inf]
    """

    def __init__(self, seed: int, parameters: Mapping[str, Vector]) -> None:
        self._own = parameters
        self._absence = PersistentStates(seed, Purpose.ABSENCE)
        self._sessions = client_sessions(seed, parameters)
        self._outages = site_outages(seed, parameters)
        self._in_sessions = np.isfinite(parameters["session_on"])
        self._in_site = (parameters["site"] >= 0) & (parameters["outage_fraction"] > 0)
        #: The last round in which each client is there, (n_clients,).
        self.last_round: Vector = np.minimum(parameters["leave_after"], _drawn_last_round(seed, parameters))
        #: Whether some client may go while it works.
        self.may_end = bool(self._in_sessions.any() or self._in_site.any())

    def seconds_left(self, client: int, server_round: int, *, now: float, draw: float) -> float:
        """Return for how many seconds from `now` on a client stays: 0 if it is not there, infinite if for good.

        Parameters
        ----------
        client, server_round : int
            Client index, and round of the message.
        now : float
            Virtual seconds since the start of the run.
        draw : float
            A uniform draw, for absence without persistence.
        """
        own = self._own
        dropout, persistence = float(own["dropout"][client]), float(own["dropout_persistence"][client])
        absent = draw < dropout
        if persistence > 0.0:
            absent = self._absence.state(client, server_round, probability=dropout, persistence=persistence)
        if absent or server_round > self.last_round[client]:
            return 0.0
        left = np.inf
        if self._in_sessions[client]:
            left = self._sessions.seconds_left(client, now)
        if self._in_site[client]:
            left = min(left, self._outages.seconds_left(int(own["site"][client]), now))
        return left

    def there_prob(self, server_round: int) -> Vector:
        """Return the probability to be neither absent in the round nor gone for good, (n_clients,)."""
        return np.where(server_round > self.last_round, 0.0, 1.0 - self._own["dropout"])


class OtherRun:
    """Who is there when, by session and site, in another run of a fleet: for forecasts, which must not know their own.

    Parameters
    ----------
    seed : int
        Seed of the fleet.
    parameters : mapping of str to ndarray, shape (n_clients,)
        The parameters of every client.

    Attributes
    ----------
    prob : ndarray, shape (n_clients,)
        Probability of each client to be there at a random instant.
    site : ndarray of int, shape (n_clients,)
        Label of the site whose outages each client shares with others, -1 if none.
    cycle : float
        Seconds from one coming to the next, the longest mean of a client or site; 0 if none comes and goes.
    shortest_cycle : float
        The shortest such mean, infinite if none comes and goes.

    Examples
    --------
    >>> from fedgc.fleets.parameters import COMMON
    >>> given = {name: np.full(2, spec.default) for name, spec in COMMON.items()}
    >>> run = OtherRun(1, {**given, "session_on": np.array([10.0, np.inf]), "session_off": np.array([30.0, 0.0])})
    >>> run.prob.tolist(), run.cycle, run.at(np.arange(4000.0)).mean(axis=0).round(1).tolist()
    ([0.25, 1.0], 40.0, [0.2, 1.0])
    """

    def __init__(self, seed: int, parameters: Mapping[str, Vector]) -> None:
        other = seed + 2**64
        self._sessions, self._outages = client_sessions(other, parameters), site_outages(other, parameters)
        self._in_sessions = np.flatnonzero(np.isfinite(parameters["session_on"]))
        in_site = (parameters["site"] >= 0) & (parameters["outage_fraction"] > 0)
        self.site: NDArray[np.int64] = np.where(in_site, parameters["site"], -1.0).astype(np.int64)
        self.prob: Vector = stay_prob(parameters)(np.zeros(in_site.size))
        sessions = (parameters["session_on"] + parameters["session_off"])[self._in_sessions]
        outages = (parameters["outage_seconds"] / np.maximum(parameters["outage_fraction"], 1e-300))[in_site]
        self.cycle = float(np.concatenate([[0.0], sessions, outages]).max())
        self.shortest_cycle = float(np.concatenate([[np.inf], sessions, outages]).min())

    def at(self, instants: Vector) -> NDArray[np.bool_]:
        """Return who is there at each instant, seconds since the start, (n_instants, n_clients)."""
        there = np.ones((instants.size, self.site.size), dtype=np.bool_)
        for client in self._in_sessions.tolist():
            there[:, client] = self._sessions.is_on(client, instants)
        for site in np.unique(self.site[self.site >= 0]).tolist():
            there[:, self.site == site] &= self._outages.is_on(site, instants)[:, None]
        return there


def stay_prob(own: Mapping[str, Any]) -> Callable[[Vector], Vector]:
    """Return the stationary probability that neither session nor site keeps a client from staying, as a function.

    Parameters
    ----------
    own : mapping of str to array_like
        The STAY_PARAMETERS, broadcast against the seconds to stay, which are at least 0.
    """
    factors = []
    if np.isfinite(own["session_on"]).any():
        factors.append(session_stay_prob(own))
    if np.any(own["outage_fraction"]):
        factors.append(site_stay_prob(own))

    def prob(seconds: Vector) -> Vector:
        # Quantiles may overflow, and infinity over an infinite mean is no number.
        finite: Vector = np.minimum(seconds, _LONGEST)
        product: Vector = np.ones_like(finite)
        for factor in factors:
            product = product * factor(finite)
        return product

    return prob


def _drawn_last_round(seed: int, parameters: Mapping[str, Vector]) -> Vector:
    """Return the last round of the clients that `leave_prob` sends away, infinite for the others."""
    leaves, when = generator(seed, Purpose.LEAVING).random((parameters["leave_by"].size, 2)).T
    last = 1.0 + np.floor(when * parameters["leave_by"])
    return np.where(leaves < parameters["leave_prob"], last, np.inf)
