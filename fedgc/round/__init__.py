"""One round: plan who computes what, then decode what came and learn from it.

This package knows no Flower: :class:`fedgc.strategies.GradientCoding` unpacks records, calls it, and packs records.
"""

from fedgc.assignment import SCHEDULES, SUMS
from fedgc.round.choices import Planning
from fedgc.round.copies import Copies
from fedgc.round.failure_domains import FailureDomains, taken_for_independent
from fedgc.round.finish import finish_round
from fedgc.round.fold import RoundFold, row_of
from fedgc.round.learn_sizes import learn_sizes
from fedgc.round.loads import check_load, first_load
from fedgc.round.option_checks import (
    check_bit_budget,
    check_failure_domains,
    check_in_a_row,
    check_list_options,
    check_order,
    check_partial_work,
    check_sum_only,
)
from fedgc.round.plan import plan_round, present_load
from fedgc.round.rejoin import rejoined
from fedgc.round.state import CodedUpdate, LateReplies, RoundOutcome, RoundPlan, RoundState
from fedgc.round.timing import LearntTiming

__all__ = [
    "SCHEDULES",
    "SUMS",
    "CodedUpdate",
    "Copies",
    "FailureDomains",
    "LateReplies",
    "LearntTiming",
    "Planning",
    "RoundFold",
    "RoundOutcome",
    "RoundPlan",
    "RoundState",
    "check_bit_budget",
    "check_failure_domains",
    "check_in_a_row",
    "check_list_options",
    "check_load",
    "check_order",
    "check_partial_work",
    "check_sum_only",
    "finish_round",
    "first_load",
    "learn_sizes",
    "plan_round",
    "present_load",
    "rejoined",
    "row_of",
    "taken_for_independent",
]
