"""Planning: how much redundancy, which schedule, code, decoder and deadline a fleet should be run with."""

from fedgc.planning.candidates import Candidate, candidates, constraints_of, recommended_assignment
from fedgc.planning.choice import Choice, FleetPlan
from fedgc.planning.planner import plan_fleet
from fedgc.planning.rounding import SentSums, sent_sums

__all__ = [
    "Candidate",
    "Choice",
    "FleetPlan",
    "SentSums",
    "candidates",
    "constraints_of",
    "plan_fleet",
    "recommended_assignment",
    "sent_sums",
]
