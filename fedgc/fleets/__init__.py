"""Fleets: models of heterogeneous clients, one file per model, what they are made of, and named presets as data."""

from fedgc.fleets.base import Fleet
from fedgc.fleets.build import FLEETS, build_fleet, presets
from fedgc.fleets.files import load_fleet
from fedgc.fleets.log_normal import LogNormalFleet
from fedgc.fleets.paper import PaperFleet
from fedgc.fleets.parameters import Parameter
from fedgc.fleets.pareto import ParetoFleet
from fedgc.fleets.shifted_exponential import ShiftedExponentialFleet
from fedgc.fleets.trace import TraceFleet
from fedgc.fleets.work import WorkDraw

__all__ = [
    "FLEETS",
    "Fleet",
    "LogNormalFleet",
    "PaperFleet",
    "Parameter",
    "ParetoFleet",
    "ShiftedExponentialFleet",
    "TraceFleet",
    "WorkDraw",
    "build_fleet",
    "load_fleet",
    "presets",
]
