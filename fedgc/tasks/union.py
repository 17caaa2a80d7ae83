"""How much of its work a client has done when it trains on all of its data as one."""

from __future__ import annotations

import math
from collections.abc import Sequence

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


def one_step(sizes: Sequence[int], shard_ids: Sequence[int], share: float) -> bool:
    """Return whether a task of one step for all of some shards takes it: not in part, and not without examples.

    Examples
    --------
    >>> one_step([3, 0], [0, 1], 1.0), one_step([3, 0], [1], 1.0), one_step([3, 0], [0], 0.5)
    (True, False, False)
    """
    return part_of(1, share) == 1 and any(sizes[shard_id] for shard_id in shard_ids)
