"""How much of its work a client has done when it trains on all of its data as one."""

from __future__ import annotations

import math

#: Rounding of a quotient of two times must not cost the last step.
_ROUNDING = 1e-9


def part_of(steps: int, share: float) -> int:
    """Return the steps that are done of so many when a share of the time for all of them is over.

    Examples
    --------
    >>> part_of(10, 0.5), part_of(3, 0.99), part_of(3, 1.0)
    (5, 2, 3)
    """
    return min(steps, math.floor(share * steps + _ROUNDING))
