"""Assign: who holds which shards, and in which order every client works on them.

:func:`assign` chooses blocks and work lists for a deadline, :func:`solve_exactly` does so exactly for small instances,
and :func:`reassign` adapts an assignment during a run. :func:`in_worst_case_order` puts its work lists in the order in
which every shard has a copy after the least work, whoever is slow. The simple choices are :func:`own_part`, no
redundancy, and :func:`fractional_repetition_blocks`, blocks of equal size balanced by reliability.
"""

from fedgc.assignment.backups import longest_list, missed_prob, own_share, residual_error, with_backups
from fedgc.assignment.balance import balanced_members, fractional_repetition_blocks, number_of_blocks
from fedgc.assignment.constraints import AssignmentConstraints, InfeasibleAssignmentError
from fedgc.assignment.instance import SCHEDULES, Schedule
from fedgc.assignment.membership import for_clients
from fedgc.assignment.milp import solve_exactly
from fedgc.assignment.optimise import assign
from fedgc.assignment.reassign import reassign
from fedgc.assignment.result import SUMS, Assignment, Block, Sums
from fedgc.assignment.uncoded import own_part
from fedgc.assignment.worst_case_milp import worst_case_lists_exactly
from fedgc.assignment.worst_case_order import in_worst_case_order, worst_case_lists
from fedgc.assignment.worst_case_work import work_while_missing, worst_case_bound

__all__ = [
    "SCHEDULES",
    "SUMS",
    "Assignment",
    "AssignmentConstraints",
    "Block",
    "InfeasibleAssignmentError",
    "Schedule",
    "Sums",
    "assign",
    "balanced_members",
    "for_clients",
    "fractional_repetition_blocks",
    "in_worst_case_order",
    "longest_list",
    "missed_prob",
    "number_of_blocks",
    "own_part",
    "own_share",
    "reassign",
    "residual_error",
    "solve_exactly",
    "with_backups",
    "work_while_missing",
    "worst_case_bound",
    "worst_case_lists",
    "worst_case_lists_exactly",
]
