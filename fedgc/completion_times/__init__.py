"""Completion times: learn how long each client takes, predict who will be in time and how far it gets.

:class:`TimeObservation` is what one round shows of one client, :class:`CompletionTimes` what all of them show. Inside:
:mod:`~fedgc.completion_times.history` keeps the observations, :mod:`~fedgc.completion_times.fixed_part` takes off what
does not depend on the load, :mod:`~fedgc.completion_times.fleet` learns what clients have in common, and one file per
family fits each client. ``FAMILIES`` lists the families. :mod:`~fedgc.completion_times.presence` says who comes,
:mod:`~fedgc.completion_times.own_frequency` what each client's past says without a model,
:mod:`~fedgc.completion_times.mixing` how far that is believed, and :mod:`~fedgc.completion_times.tabulated` answers
plans, which ask often. :class:`Overheads` says how long before the deadline a client should stop working, to be heard.
"""

from fedgc.completion_times.base import FleetPrior, TimeFamily
from fedgc.completion_times.families import FAMILIES
from fedgc.completion_times.goodness_of_fit import GoodnessOfFit
from fedgc.completion_times.log_normal import LogNormalTimes
from fedgc.completion_times.model import CompletionTimes
from fedgc.completion_times.observation import TimeObservation
from fedgc.completion_times.overheads import Overheads
from fedgc.completion_times.shifted_exponential import ShiftedExponentialTimes
from fedgc.completion_times.weibull import WeibullTimes

__all__ = [
    "FAMILIES",
    "CompletionTimes",
    "FleetPrior",
    "GoodnessOfFit",
    "LogNormalTimes",
    "Overheads",
    "ShiftedExponentialTimes",
    "TimeFamily",
    "TimeObservation",
    "WeibullTimes",
]
