"""What identifies the draws of a run: the same for all strategies that are compared."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from fedgc.errors import ExperimentError
from fedgc.fleets import Fleet
from fedgc.play import RoundDraws
from fedgc.simulation import HandedOut


def draws_met(draws: RoundDraws, rounds: int) -> str:
    """Return a hash of what every client draws in every round: the same for equal fleets.

    It is that of :class:`fedgc.play.PlayedRounds` for the rounds from the first on. Draws are keyed by seed, client and
    round, so that strategies which meet one fleet with one seed meet equal ones; where clients come and go in virtual
    time these are the draws of rounds that begin at the start.
    """
    digest = hashlib.sha256()
    for server_round in range(1, rounds + 1):
        digest.update(draws.of_round(server_round, 0.0).T.tobytes())
    return digest.hexdigest()


def check_handed_out(handed_out: Iterable[HandedOut], fleet: Fleet) -> None:
    """Hold every draw that a grid has handed out against a fleet of the same kind and seed that no run has touched.

    Together with the hash this asserts that methods have met the same arrivals: each what the fleet draws for the
    clients and rounds that it asked for.

    Raises
    ------
    ExperimentError
        If the fleet draws something else.
    """
    for one in handed_out:
        if not one.is_of(fleet):
            raise ExperimentError(
                f"client {one.client}, round {one.server_round}: was told {one.draw}, which is not what the fleet draws"
            )
