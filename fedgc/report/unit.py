"""The unit in which the way to a target is counted."""

from __future__ import annotations

from typing import Literal, get_args

#: Units of the way to a target: rounds, or virtual seconds.
Unit = Literal["rounds", "seconds"]
UNITS: tuple[Unit, ...] = get_args(Unit)

#: The units as axes name them.
AXIS = {"rounds": "rounds", "seconds": "virtual seconds"}
