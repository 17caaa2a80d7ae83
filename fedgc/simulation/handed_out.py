"""What a grid in virtual time has told clients about their pace, so that it can be held against the fleet."""

from __future__ import annotations

from dataclasses import dataclass

from fedgc.fleets import Fleet, WorkDraw


@dataclass(frozen=True)
class HandedOut:
    """One draw that a message met.

    Attributes
    ----------
    client, server_round, stream : int
        Client, the round of the message, and how many messages of that round the client got before.
    begins : float
        Virtual instant at which the client turned to it.
    training : bool
        Whether there was work in it.
    draw : WorkDraw
        What the client made of it.
    """

    client: int
    server_round: int
    stream: int
    begins: float
    training: bool
    draw: WorkDraw

    def is_of(self, fleet: Fleet) -> bool:
        """Return whether a fleet, asked anew, draws the same."""
        anew = fleet.draw(self.client, self.server_round, stream=self.stream, now=self.begins, training=self.training)
        return anew == self.draw
