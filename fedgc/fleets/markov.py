"""States that persist over rounds: two-state Markov chains, one per client."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedgc.fleets.keys import Purpose, generator


class PersistentStates:
    """A chain of yes-or-no states over rounds for every client, in its stationary state from round 0 on.

    Parameters
    ----------
    seed : int
        Seed of the fleet.
    purpose : Purpose
        What the state means; chains of different purposes are independent.

    Notes
    -----
    With stationary probability p and lag-one autocorrelation rho the chain copies its last state with probability rho
    and draws it anew, yes with probability p, otherwise: P(yes | yes) = p + rho (1 - p) and P(yes | no) = p (1 - rho).
    In this form a whole stretch of rounds is drawn at once: the state of a round is what was drawn anew last.

    A client's chain always starts at round 0 with a generator of its own, and is kept, so that any order of asking
    gives the same answer. Longer stretches are drawn from the start again, each twice as long as the last, because
    keeping a generator per client would take more memory than the states.

    Examples
    --------
    >>> chain = PersistentStates(1, Purpose.ABSENCE)
    >>> states = [chain.state(0, r, probability=0.5, persistence=0.9) for r in range(2000)]
    >>> bool(0.85 < np.corrcoef(states[1:], states[:-1])[0, 1] < 0.95)
    True
    """

    def __init__(self, seed: int, purpose: Purpose) -> None:
        self._seed = seed
        self._purpose = purpose
        self._known: dict[int, NDArray[np.bool_]] = {}

    def state(self, client: int, server_round: int, *, probability: float, persistence: float) -> bool:
        """Return the state of a client in a round.

        Parameters
        ----------
        client, server_round : int
            Whose state, and when; rounds count from 0.
        probability : float
            Stationary probability p of the state.
        persistence : float
            Lag-one autocorrelation rho, in [0, 1).
        """
        known = self._known.get(client)
        if known is None or server_round >= known.size:
            length = 64
            while length <= server_round:
                length *= 2
            known = self._draw(client, length, probability, persistence)
            self._known[client] = known
        return bool(known[server_round])

    def _draw(self, client: int, length: int, probability: float, persistence: float) -> NDArray[np.bool_]:
        # Row by row, so that a longer chain begins with the shorter one.
        again, value = generator(self._seed, self._purpose, client).random((length, 2)).T
        fresh = again >= persistence
        fresh[0] = True
        drawn = np.maximum.accumulate(np.where(fresh, np.arange(length), 0))
        states: NDArray[np.bool_] = (value < probability)[drawn]
        return states
