"""What identifies the draws of a run: the same for all strategies that are compared."""

from __future__ import annotations

import hashlib
import struct

from fedgc.fleets import Fleet


def draws_met(fleet: Fleet, rounds: int) -> str:
    """Return a hash of what every client draws in every round, if it begins at the start: the same for equal fleets.

    Draws are keyed by seed, client and round, so that strategies which meet one fleet with one seed meet equal ones.
    """
    digest = hashlib.sha256()
    for server_round in range(1, rounds + 1):
        for client in range(fleet.n_clients):
            digest.update(struct.pack("3d", *fleet.draw(client, server_round)))
    return digest.hexdigest()
