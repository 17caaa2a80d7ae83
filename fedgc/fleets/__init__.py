"""Fleets: models of heterogeneous clients, one file per model, and named presets as data."""

from fedgc.fleets.base import Fleet
from fedgc.fleets.build import FLEETS, build_fleet, presets
from fedgc.fleets.log_normal import LogNormalFleet
from fedgc.fleets.paper import PaperFleet
from fedgc.fleets.shifted_exponential import ShiftedExponentialFleet

__all__ = [
    "FLEETS",
    "Fleet",
    "LogNormalFleet",
    "PaperFleet",
    "ShiftedExponentialFleet",
    "build_fleet",
    "presets",
]
