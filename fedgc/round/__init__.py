"""One round: plan who computes what, then decode what came and learn from it.

This package knows no Flower: :class:`fedgc.strategies.GradientCoding` unpacks records, calls it, and packs records.
"""

from fedgc.assignment import SCHEDULES, SUMS
from fedgc.round.after.finish import finish_round
from fedgc.round.after.learn_sizes import learn_sizes
from fedgc.round.before.failure_domains import FailureDomains, taken_for_independent
from fedgc.round.before.loads import check_load, first_load
from fedgc.round.before.option_checks import (
    check_bit_budget,
    check_failure_domains,
    check_in_a_row,
    check_list_options,
    check_order,
    check_partial_work,
    check_sum_only,
)
from fedgc.round.before.plan import plan_round, present_load
from fedgc.round.before.planning import Planning
from fedgc.round.before.rejoin import rejoined
from fedgc.round.before.timing import LearntTiming
from fedgc.round.during.copies import Copies
from fedgc.round.during.fold import RoundFold, row_of
from fedgc.round.state import CodedUpdate, LateReplies, RoundOutcome, RoundPlan, RoundState

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
