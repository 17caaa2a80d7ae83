"""Virtual time: a clock that jumps from event to event, and never sleeps."""

from __future__ import annotations

import heapq
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

#: How often in a row an app may wait while nothing at all is due before it is told that it waits in vain.
MAX_IDLE_WAITS = 10_000


class VirtualClock:
    """Discrete-event time in seconds, starting at 0.

    Events run in order of their instant; ties go to the lower priority, then to the earlier scheduling.

    Examples
    --------
    >>> clock = VirtualClock()
    >>> clock.schedule(2.5, lambda: print("at", clock.now()))
    >>> clock.wait(10.0)
    at 2.5
    >>> clock.wait(10.0)
    >>> clock.now()
    10.0
    """

    def __init__(self) -> None:
        self._now = 0.0
        self._events: list[tuple[float, int, int, Callable[[], None]]] = []
        self._scheduled = 0
        self._idle_waits = 0

    def now(self) -> float:
        """Return the current virtual instant."""
        return self._now

    def schedule(self, instant: float, action: Callable[[], None], *, priority: int = 0) -> None:
        """Run `action` when the clock reaches `instant`."""
        heapq.heappush(self._events, (max(instant, self._now), priority, self._scheduled, action))
        self._scheduled += 1

    def wait(self, until: float) -> None:
        """Advance to the next event, or to `until` if none is due by then.

        Raises
        ------
        TimeoutError
            If the wait can never end, because nothing is due.
        """
        if self._events and self._events[0][0] <= until:
            self._idle_waits = 0
            instant, _, _, action = heapq.heappop(self._events)
            self._now = instant
            action()
            return
        self._idle_waits += not self._events
        if until == float("inf") or self._idle_waits > MAX_IDLE_WAITS:
            raise TimeoutError(
                "the ServerApp waits in virtual time, but no reply or other event is due: it would wait for ever"
            )
        self._now = max(self._now, until)

    def sleep(self, seconds: float) -> None:
        """Advance by `seconds`, running every event on the way."""
        until = self._now + seconds
        while self._events and self._events[0][0] <= until:
            self.wait(until)
        self.wait(until)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Let ``time.sleep``, ``time.time`` and ``time.monotonic`` of this thread follow the virtual clock.

        An unmodified ServerApp may poll with `time.sleep` until `time.time` has passed its limit; on this clock the
        poll costs nothing. Other threads keep real time.
        """
        owner = threading.get_ident()
        start = 1.0e9  # any fixed instant: traces must not depend on today's date

        def here(virtual: Callable[..., object], real: Callable[..., object]) -> Callable[..., object]:
            def dispatch(*arguments: object) -> object:
                return (virtual if threading.get_ident() == owner else real)(*arguments)

            return dispatch

        with ExitStack() as stack:
            stack.enter_context(mock.patch.object(time, "sleep", here(self.sleep, time.sleep)))
            stack.enter_context(mock.patch.object(time, "time", here(lambda: start + self._now, time.time)))
            stack.enter_context(mock.patch.object(time, "monotonic", here(self.now, time.monotonic)))
            # Flower's sample_nodes holds a reference of its own to time.sleep.
            flower = sys.modules.get("flwr.serverapp.strategy.strategy_utils")
            if flower is not None:
                stack.enter_context(mock.patch.object(flower, "sleep", time.sleep))
            yield
