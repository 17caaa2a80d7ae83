"""What identifies the draws of a run: the same for all strategies that are compared."""

from __future__ import annotations

import hashlib

from fedgc.play import RoundDraws


def draws_met(draws: RoundDraws, rounds: int) -> str:
    """Return a hash of what every client draws in every round: the same for equal fleets.

    What has been handed out to a method is hashed as it was. Draws are keyed by seed, client and round, so that
    strategies which meet one fleet with one seed meet equal ones; where clients come and go in virtual time these are
    the draws of rounds that begin at the start.
    """
    digest = hashlib.sha256()
    for server_round in range(1, rounds + 1):
        digest.update(draws.of_round(server_round, 0.0).T.tobytes())
    return digest.hexdigest()
