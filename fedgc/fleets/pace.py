"""Pace: factors on the work time that differ between clients, and change over rounds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fedgc.fleets.keys import Purpose, generator
from fedgc.fleets.markov import PersistentStates
from fedgc.fleets.parameters import Vector

#: Logarithm of the largest factor: more is as good as never, and would overflow.
_LARGEST = 300.0

_PARAMETERS = ("slow_prob", "slow_factor", "slow_persistence", "drift", "change_after", "change_factor")


class Pace:
    """How many times longer than in its model the work of a client takes in a round.

    Parameters
    ----------
    seed : int
        Seed of the fleet.
    parameters : mapping of str to ndarray, shape (n_clients,)
        The parameters of every client.

    Attributes
    ----------
    lasting : ndarray, shape (n_clients,)
        Each client's own factor, drawn once per seed.
    """

    def __init__(self, seed: int, parameters: Mapping[str, Vector]) -> None:
        self._own = {name: parameters[name] for name in _PARAMETERS}
        self._slowness = PersistentStates(seed, Purpose.SLOWNESS)
        self.lasting = lasting_factors(seed, parameters["spread"])
        self._changes = bool(np.any(parameters["drift"]) or (parameters["change_factor"] != 1.0).any())
        self._usual = -1, self.lasting

    def factor(self, client: int, server_round: int, *, draw: float) -> float:
        """Return the factor of a client in a round; `draw` is a uniform draw, for slowness without persistence."""
        prob, persistence = float(self._own["slow_prob"][client]), float(self._own["slow_persistence"][client])
        is_slow = draw < prob
        if persistence > 0.0:
            is_slow = self._slowness.state(client, server_round, probability=prob, persistence=persistence)
        usual = float(self.usual_factors(server_round)[client])
        return usual * float(self._own["slow_factor"][client]) if is_slow else usual

    def usual_factors(self, server_round: int) -> Vector:
        """Return the factors of all clients in a round that is not slow, (n_clients,)."""
        # Draws come round by round: what all clients have in common need not be worked out for each.
        if self._changes and self._usual[0] != server_round:
            self._usual = server_round, self.lasting * growth_by(self._own, server_round)
        return self._usual[1]


def lasting_factors(seed: int, spread: Vector) -> Vector:
    """Return each client's factor on its work time, drawn once per seed.

    Parameters
    ----------
    seed : int
        Seed of the fleet.
    spread : ndarray, shape (n_clients,)
        Standard deviation of the factor's logarithm; its median is one.

    Examples
    --------
    >>> factors = lasting_factors(1, np.full(10_000, 0.6))
    >>> bool(abs(np.log(factors).std() - 0.6) < 0.02)
    True
    """
    return np.exp(np.clip(spread * generator(seed, Purpose.SPREAD).standard_normal(spread.size), -_LARGEST, _LARGEST))


def growth_by(own: Mapping[str, Any], server_round: int) -> Vector:
    """Return the factor on the work time that has built up by a round.

    Parameters
    ----------
    own : mapping of str to array_like
        `drift`, `change_after` and `change_factor`.
    server_round : int
        Round, counted from 0.

    Notes
    -----
    ``(1 + drift)^round``, times `change_factor` in the rounds after `change_after`.

    Examples
    --------
    >>> own = {"drift": 0.1, "change_after": 2.0, "change_factor": 3.0}
    >>> [round(float(growth_by(own, r)), 3) for r in range(4)]
    [1.0, 1.1, 1.21, 3.993]
    """
    drifted: Vector = np.exp(np.minimum(server_round * np.log1p(own["drift"]), _LARGEST))
    return drifted * np.where(server_round > own["change_after"], own["change_factor"], 1.0)
