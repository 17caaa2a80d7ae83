"""Arrival models: which coded updates come by the deadline, and with what probability."""

from fedgc.arrivals.base import ArrivalModel, Part, as_arrival_model
from fedgc.arrivals.domains import DomainArrivals
from fedgc.arrivals.independent import IndependentArrivals
from fedgc.arrivals.joint import JointArrivals
from fedgc.arrivals.progress import ProgressArrivals

__all__ = [
    "ArrivalModel",
    "DomainArrivals",
    "IndependentArrivals",
    "JointArrivals",
    "Part",
    "ProgressArrivals",
    "as_arrival_model",
]
