"""Deadline: how long a round may last, one file per rule, and the loop that keeps to it."""

from fedgc.deadline.automatic import AutomaticDeadline
from fedgc.deadline.base import DeadlineRule
from fedgc.deadline.build import DEADLINES, build_deadline
from fedgc.deadline.collect import Collected, collect_replies
from fedgc.deadline.fixed import WAIT_FOR_EVERYONE, FixedDeadline
from fedgc.deadline.outlook import Outlook, Presence, RoundForecast, Timing, TimingAtOnce
from fedgc.deadline.progress import TimingOfProgress, mean_progress
from fedgc.deadline.quantile import QuantileDeadline
from fedgc.deadline.ranking import cover_time, time_at_fixed_step, time_to_target

__all__ = [
    "DEADLINES",
    "WAIT_FOR_EVERYONE",
    "AutomaticDeadline",
    "Collected",
    "DeadlineRule",
    "FixedDeadline",
    "Outlook",
    "Presence",
    "QuantileDeadline",
    "RoundForecast",
    "Timing",
    "TimingAtOnce",
    "TimingOfProgress",
    "build_deadline",
    "collect_replies",
    "cover_time",
    "mean_progress",
    "time_at_fixed_step",
    "time_to_target",
]
