"""What the clients of a fleet make of each round: drawn once, for every run that meets it."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedgc.fleets import Fleet

Vector = NDArray[np.float64]


class RoundDraws:
    """The draws of all clients of a fleet, round by round, for one run after another.

    Parameters
    ----------
    fleet : Fleet
        The clients.

    Attributes
    ----------
    in_time : bool
        Whether clients come and go in virtual time, so that draws depend on the instant at which a round begins.

    Notes
    -----
    Draws are keyed by client and round, so every run on a fleet meets the same ones. They are kept, unless clients come
    and go in virtual time: then they depend on the instant at which the round begins.
    """

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        own = fleet.parameters
        in_site = (own["site"] >= 0) & (own["outage_fraction"] > 0)
        self.in_time = bool(np.isfinite(own["session_on"]).any() or in_site.any())
        self._kept: dict[int, Vector] = {}

    def of_round(self, server_round: int, now: float) -> Vector:
        """Return fixed seconds, seconds per shard and seconds until leaving of each client, (3, n_clients)."""
        drawn = self._kept.get(server_round)
        if drawn is None:
            fleet = self.fleet
            drawn = np.array([fleet.draw(client, server_round, now=now) for client in range(fleet.n_clients)]).T
            if not self.in_time:
                self._kept[server_round] = drawn
        return drawn


class Draws(Protocol):
    """What :func:`fedgc.play.play_rounds` asks of draws: :class:`RoundDraws`, or rounds that were recorded."""

    fleet: Fleet

    def of_round(self, server_round: int, now: float) -> Vector:
        """Return fixed seconds, seconds per shard and seconds until leaving of each client, (3, n_clients)."""
