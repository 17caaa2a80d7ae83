"""How many copies of each shard there are, where that is a number and where it is left open."""

from __future__ import annotations

from typing import Literal

from fedgc.decoders import AUTO
from fedgc.validation import check_integer

#: Copies of each shard that are tried where nobody says how many, up to as many as a plan tries. More of them come from
#: clients that are left over and stand by.
LOADS = (2, 3, 5)


def check_load(load: object, schedule: str) -> None:
    """Raise ValueError unless the load is a number of copies, or "auto" for work lists.

    Examples
    --------
    >>> check_load("auto", "full")
    Traceback (most recent call last):
    ...
    ValueError: load must be a number for schedule 'full', where more copies are more work; got 'auto'
    """
    if load != AUTO:
        check_integer("load", load, low=1)
    elif schedule != "work-list":
        raise ValueError(
            f"load must be a number for schedule {schedule!r}, where more copies are more work; got {load!r}"
        )


def first_load(load: int | Literal["auto"]) -> int:
    """Return the copies of each shard in the first round."""
    return LOADS[0] if load == "auto" else load


def other_loads(load: int, n_nodes: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the larger and the smaller numbers of copies to try, from the present one on.

    Examples
    --------
    >>> other_loads(3, 20), other_loads(3, 4), other_loads(15, 15)
    (((5,), (2,)), ((4,), (2,)), ((), (5, 3, 2)))
    """
    more = dict.fromkeys(min(other, n_nodes) for other in LOADS if other > load)
    return tuple(other for other in more if other > load), tuple(other for other in reversed(LOADS) if other < load)
