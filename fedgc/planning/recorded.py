"""Forecast for a recorded trace: its rounds are played, as they were recorded for all clients together."""

from __future__ import annotations

import numpy as np

from fedgc.deadline import RoundForecast
from fedgc.decoders import CalibratedDecoder
from fedgc.fleets import Fleet, TraceFleet
from fedgc.fleets.parameters import Vector
from fedgc.gram import GramModel
from fedgc.planning.candidates import Candidate
from fedgc.play import play_rounds

#: Recorded rounds that are played at most for each choice, and clients for which they are, so that playing takes less
#: time than the rest of a plan.
MOST_ROUNDS, MOST_CLIENTS = 1000, 2000


class RecordedRounds:
    """The rounds of a trace, each an equally likely outcome of a round to come.

    Parameters
    ----------
    fleet : TraceFleet
        The clients; none of them may come and go in virtual time.
    server_round : int
        Round to plan for, if the fleet changes.

    Notes
    -----
    The clients' own probabilities, which codes and decoding weights are made from, are those of the trace however they
    hang together; a run learns the same. What is decoded with them, and when rounds end, follows from what clients did
    together: a night in which all are away leaves nothing to decode, which for independent clients would hardly occur.
    """

    def __init__(self, fleet: TraceFleet, server_round: int) -> None:
        self.fleet: Fleet = fleet
        self._outcomes = fleet.outcomes(server_round, MOST_ROUNDS)

    def of_round(self, server_round: int, now: float) -> Vector:
        """Return fixed seconds, seconds per shard and seconds until leaving of each client, (3, n_clients)."""
        return np.asarray(self._outcomes[server_round])

    def forecast(
        self, candidate: Candidate, decoder: CalibratedDecoder, gram: GramModel, deadline: float, arrivals: float
    ) -> RoundForecast:
        """Return the mean over the rounds of what they take, and of their squared error.

        Parameters
        ----------
        candidate : Candidate
            The code, and who takes part.
        decoder : CalibratedDecoder
            Ready for the code. What of its weights goes by independent clients is part of the error.
        gram : GramModel
            Model of the shard updates.
        deadline : float
            Seconds.
        arrivals : float
            Mean number of clients whose update counts, which does not depend on who comes together.
        """
        played = play_rounds(
            self,
            decoder,
            deadline,
            self._outcomes.shape[0],
            clients=candidate.clients,
            unit=candidate.unit,
            first_round=0,
        )
        # The same clients come in many of the rounds.
        _, first, count = np.unique(played.arrived, axis=0, return_index=True, return_counts=True)
        labels = decoder.code.interchangeable
        errors = np.array([gram.error_over_places(played.coverage[one], labels) for one in first])
        return RoundForecast(float(played.seconds.mean()), arrivals, float(count @ errors) / count.sum())


def recorded_rounds(fleet: object, server_round: int) -> tuple[RecordedRounds | None, str]:
    """Return the rounds of a fleet if it is a trace that can be played, and what a plan has to say otherwise."""
    if not isinstance(fleet, TraceFleet):
        return None, ""
    if fleet.comes_and_goes:
        return None, "with sessions or outages on top of a trace, its clients count as independent of each other"
    if fleet.n_clients > MOST_CLIENTS:
        return None, f"the clients of a trace count as independent of each other beyond {MOST_CLIENTS}"
    return RecordedRounds(fleet, server_round), ""
