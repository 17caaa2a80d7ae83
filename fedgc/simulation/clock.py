"""Virtual time: a clock that jumps from event to event, and never sleeps."""

from __future__ import annotations

import heapq
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import BuiltinFunctionType
from typing import TypeVar
from unittest import mock

T = TypeVar("T")

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
        self._client_delay: float | None = None

    def now(self) -> float:
        """Return the current virtual instant."""
        return self._now

    def go_to(self, instant: float) -> None:
        """Begin at another instant than 0; nothing must be scheduled yet."""
        assert not self._events
        self._now = instant

    def schedule(self, instant: float, action: Callable[[], None], *, priority: int = 0) -> None:
        """Run `action` when the clock reaches `instant`."""
        heapq.heappush(self._events, (max(instant, self._now), priority, self._scheduled, action))
        self._scheduled += 1

    def wait(self, until: float) -> None:
        """Advance to the next instant with events and run them, or to `until` if none is due by then.

        Raises
        ------
        TimeoutError
            If the wait can never end, because nothing is due.
        """
        if self._events and self._events[0][0] <= until:
            self._idle_waits = 0
            self._now = self._events[0][0]
            # All events of one instant, so that whoever looks next sees the instant as a whole.
            while self._events and self._events[0][0] <= self._now:
                heapq.heappop(self._events)[3]()
            return
        self._idle_waits += not self._events
        if until == float("inf") or self._idle_waits > MAX_IDLE_WAITS:
            raise TimeoutError(
                "the ServerApp waits in virtual time, but no reply or other event is due: it would wait for ever"
            )
        self._now = max(self._now, until)

    def sleep(self, seconds: float) -> None:
        """Advance by `seconds`, running every event on the way; inside a client's call, make only that client later."""
        if self._client_delay is not None:
            self._client_delay += max(0.0, seconds)
            return
        until = self._now + seconds
        while self._events and self._events[0][0] <= until:
            self.wait(until)
        self.wait(until)

    def call_client(self, call: Callable[[], T]) -> tuple[T, float]:
        """Return what `call` returns and the virtual seconds that it slept, which pass for nobody else."""
        self._client_delay = 0.0
        try:
            result = call()
            return result, self._client_delay
        finally:
            self._client_delay = None

    def _seen(self) -> float:
        """Return the instant as the running code should see it."""
        return self._now + (self._client_delay or 0.0)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Let this thread's ``time.sleep``, ``time.time`` and ``time.monotonic`` follow the virtual clock.

        An unmodified ServerApp may poll with `time.sleep` until `time.time` has passed its limit; on this clock the
        poll costs nothing. Modules that have imported one of the three by name are covered too. Real time is kept by
        other threads, by the standard library itself (event loops, queues and subprocesses would hang on a clock that
        stands still), and by `time.perf_counter` and `datetime.now`, which programs use to measure themselves.
        """
        owner = threading.get_ident()
        start = 1.0e9  # any fixed instant: traces must not depend on today's date
        active = True

        def here(virtual: Callable[..., object], real: Callable[..., object]) -> Callable[..., object]:
            def dispatch(*arguments: object) -> object:
                # A module that is first imported during the run keeps this function: afterwards it passes on.
                ours = active and threading.get_ident() == owner and not _is_standard(sys._getframe(1).f_globals)
                return (virtual if ours else real)(*arguments)

            return dispatch

        stand_ins: dict[object, Callable[..., object]] = {
            time.sleep: here(self.sleep, time.sleep),
            time.time: here(lambda: start + self._seen(), time.time),
            time.monotonic: here(self._seen, time.monotonic),
        }
        with ExitStack() as stack:
            for module in list(sys.modules.values()):
                if module is not time and _is_standard(vars(module)):
                    continue
                for name in ("sleep", "time", "monotonic"):
                    value = vars(module).get(name)
                    if isinstance(value, BuiltinFunctionType) and value in stand_ins:
                        stack.enter_context(mock.patch.object(module, name, stand_ins[value]))
            try:
                yield
            finally:
                active = False


def _is_standard(module_globals: Mapping[str, object]) -> bool:
    """Return whether a module with these globals belongs to the standard library."""
    return str(module_globals.get("__name__", "")).partition(".")[0] in sys.stdlib_module_names
