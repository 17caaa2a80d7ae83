"""What clients say of their times, held against what the server's clock shows."""

from __future__ import annotations

from dataclasses import replace

from fedgc.round import CodedUpdate

#: A client's clock may run so many times as fast as the server's, and be off by so many seconds.
_FAST, _OFF = 2.0, 1.0


def with_a_clock_that_can_be(update: CodedUpdate) -> tuple[CodedUpdate, str | None]:
    """Return a reply without its client's own times if these cannot be, and why.

    By the server's clock no client works for longer than its reply takes. The update itself is none the worse for it;
    only what is learnt of times would be.

    Examples
    --------
    >>> import numpy as np
    >>> said = CodedUpdate({}, np.array([0]), np.array([5.0]), seconds=3.0, work_seconds=1e9, busy_seconds=1e9)
    >>> with_a_clock_that_can_be(said)[1]
    'it says that it was busy for 1e+09 s of the 3 s to its reply'
    """
    if update.seconds is None or update.busy_seconds is None or could_be_busy(update.busy_seconds, update.seconds):
        return update, None
    reason = f"it says that it was busy for {update.busy_seconds:g} s of the {update.seconds:.3g} s to its reply"
    return replace(update, work_seconds=None, busy_seconds=None), reason


def could_be_busy(busy: float, seconds: float) -> bool:
    """Return whether a client may have been busy for so long until a reply that took so many seconds."""
    return 0.0 <= busy <= _FAST * seconds + _OFF
