"""Timing of a fleet that is to be planned for: in one of its rounds, and in units of several shards."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedgc.deadline import Presence
from fedgc.fleets import Fleet
from fedgc.fleets.presence import OtherRun
from fedgc.planning.recorded import RecordedRounds


class AtRound:
    """A fleet in a given round, as a :class:`fedgc.deadline.Timing`; of a trace, with what clients did together."""

    def __init__(self, fleet: Fleet, server_round: int, recorded: RecordedRounds | None = None) -> None:
        self.recorded = recorded
        self._fleet, self._round = fleet, server_round
        self.loss_detection = fleet.loss_detection
        self.presence: Presence = OtherRun(fleet.seed, fleet.parameters)

    def reach(self, deadline: float, max_shards: int) -> NDArray[np.float64]:
        """Return the probability of each client to have done at least k shards by then."""
        return self._fleet.reach(deadline, max_shards, server_round=self._round)

    def partial_reach(self, deadline: float, lengths: ArrayLike) -> NDArray[np.float64]:
        """Return the same for work lists of these lengths."""
        return self._fleet.partial_reach(deadline, lengths, server_round=self._round)

    def straggle_prob(self, deadline: float, load: ArrayLike) -> NDArray[np.float64]:
        """Return the probability of each client not to have done its load by then."""
        return self._fleet.straggle_prob(deadline, load, server_round=self._round)


class InUnits:
    """Timing of clients that work on units of several shards."""

    def __init__(self, timing: AtRound, unit: int) -> None:
        self._timing, self._unit = timing, unit
        self.loss_detection = timing.loss_detection
        self.presence: Presence = timing.presence

    def reach(self, deadline: float, max_shards: int) -> NDArray[np.float64]:
        """Return the probability of each client to have done at least k units by then."""
        if self._unit == 1:
            return self._timing.reach(deadline, max_shards)
        done = [1.0 - self._timing.straggle_prob(deadline, k * self._unit) for k in range(1, max_shards + 1)]
        return np.column_stack([np.ones(done[0].size), *done])

    def partial_reach(self, deadline: float, lengths: ArrayLike) -> NDArray[np.float64]:
        """Return the same for work lists, which are made of single shards."""
        return self._timing.partial_reach(deadline, lengths)

    def straggle_prob(self, deadline: float, load: ArrayLike) -> NDArray[np.float64]:
        """Return the probability of each client not to have done a load of units by then."""
        return self._timing.straggle_prob(deadline, self._unit * np.asarray(load))
