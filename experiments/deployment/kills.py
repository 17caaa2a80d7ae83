"""Kill a node in every round of a run, at some instant of the round, and start it again."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Sequence

from fleet import LoopbackFleet

_ROUND = re.compile(r"\[ROUND (\d+)/\d+\]")


class KillEveryRound:
    """Follows a run's output, for :meth:`fleet.LoopbackFleet.run`.

    Parameters
    ----------
    fleet : LoopbackFleet
        The fleet.
    victims : sequence of int
        The node that is killed in each round; no further rounds are disturbed.
    seconds : sequence of float
        How long after each round's beginning.
    begin : str
        Text before which no round counts.

    Attributes
    ----------
    killed : list of (int, int, float)
        Round, node and instant of each kill.
    """

    def __init__(
        self, fleet: LoopbackFleet, victims: Sequence[int], seconds: Sequence[float], *, begin: str = ""
    ) -> None:
        self.killed: list[tuple[int, int, float]] = []
        self._fleet = fleet
        self._left = list(zip(victims, seconds, strict=True))
        self._begin = begin
        self._begun = False

    def __call__(self, line: str) -> None:
        """Set off a round's kill when it begins."""
        self._begun = self._begun or self._begin in line
        found = _ROUND.search(line)
        if self._begun and found and self._left:
            victim, after = self._left.pop(0)
            timer = threading.Timer(after, self._kill, [int(found[1]), victim])
            timer.daemon = True
            timer.start()

    def _kill(self, server_round: int, victim: int) -> None:
        self._fleet.kill(victim)
        self.killed.append((server_round, victim, time.time()))
        self._fleet.restart(victim)
