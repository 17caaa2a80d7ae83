"""Time as a value: the same round code runs against the wall clock and against a virtual one."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What a round needs to know of time. Instants and durations are in seconds."""

    def now(self) -> float:
        """Return the current instant."""

    def wait(self, until: float) -> None:
        """Return at the instant `until` at the latest, and earlier if a reply may have come."""


class WallClock:
    """Real time, for Flower's Simulation and Deployment Runtimes.

    Parameters
    ----------
    poll_interval : float
        Seconds between two looks for replies. Flower offers no notification, and a look costs 0.2 ms in its
        Simulation Runtime and tens of milliseconds over HTTP.
    """

    def __init__(self, poll_interval: float = 0.05) -> None:
        self.poll_interval = poll_interval

    def now(self) -> float:
        """Return seconds of a clock that never runs backwards."""
        return time.monotonic()

    def wait(self, until: float) -> None:
        """Sleep for one poll interval, or up to `until` if that is sooner."""
        time.sleep(max(0.0, min(self.poll_interval, until - self.now())))
