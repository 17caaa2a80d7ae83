"""Presence: whether a client is there when a message comes, and how long it stays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

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
