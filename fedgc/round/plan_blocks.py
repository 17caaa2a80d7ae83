"""Plan whole blocks: every member computes all of its block and then replies."""

from __future__ import annotations

import numpy as np

from fedgc.assignment import Assignment, fractional_repetition_blocks, longest_list
from fedgc.deadline import Timing
from fedgc.round.choices import Planning, assign_those_here, time_to_reconsider
from fedgc.round.state import RoundPlan, RoundState
from fedgc.round.timing import LearntTiming
from fedgc.round.with_code import CodeForNodes, plan_with_code

#: Limits may make a block as long as this, whatever the mean is, and how likely its members are to do it is known.
_LONGEST_BLOCK = 1000


def plan_blocks(state: RoundState, nodes: tuple[int, ...], copies: int, planning: Planning) -> RoundPlan:
    """Return a plan of fractional-repetition blocks, see :func:`fedgc.round.plan_round`."""
    n_shards = state.shard_examples.size
    if planning.timing is not None:
        return _plan_known(state, nodes, copies, planning, planning.timing)
    last = state.plan if state.plan is not None and state.plan.everyone == nodes else None

    def with_assignment(assignment: Assignment) -> RoundPlan:
        return plan_with_code(state, planning, CodeForNodes(nodes, *assignment.code(), assignment))

    if planning.constraints is not None:
        kept = None if last is None or last.assignment is None else with_assignment(last.assignment)
        if kept is not None and not time_to_reconsider(state.rounds):
            return kept
        balanced = with_assignment(_within_limits(state, nodes, copies, planning))
    else:
        everyone = np.arange(len(nodes))
        old = last.code if last is not None and last.code.blocks is not None else None
        kept = None if old is None else plan_with_code(state, planning, CodeForNodes(nodes, old, everyone))
        code = fractional_repetition_blocks(state.reliability.straggle_prob(nodes), n_shards, copies)
        balanced = plan_with_code(state, planning, CodeForNodes(nodes, code, everyone))
    return balanced if kept is None or _is_better(balanced, kept, planning.reassignment_gain) else kept


def _is_better(new: RoundPlan, kept: RoundPlan, gain: float) -> bool:
    """Return whether new blocks are predicted to have less residual error by more than this fraction."""
    before, after = kept.decoder.residual_error, new.decoder.residual_error
    return before is not None and after is not None and after < (1.0 - gain) * before


def _within_limits(state: RoundState, nodes: tuple[int, ...], copies: int, planning: Planning) -> Assignment:
    """Return blocks that keep the constraints, for clients of which no more is known than what has been learnt.

    How large each block is depends on how fast its members are. While no times have been seen, the deadline is taken to
    be about right for a mean share, without which the most reliable block would be given all shards.
    """
    if planning.deadline is None:
        raise ValueError("deadline must be given for constraints; got None")
    n_shards, n_nodes = state.shard_examples.size, len(nodes)
    before = None if state.plan is None else state.plan.deadline
    seconds = planning.deadline.initial if before is None else before
    away = state.reliability.straggle_prob(nodes)
    guess = planning.deadline.initial * n_nodes / (1.5 * copies * n_shards)
    timing = LearntTiming(state.completion_times, nodes, away, guess, state.overheads, state.rounds)
    # As without limits, what is left over when all blocks have their members joins some of them.
    most = -(-n_nodes // (n_nodes // copies))
    holders = copies if most == copies else (copies, most)
    # Where limits leave few who may hold many shards, a block is far larger than the mean.
    longest = min(n_shards, max(longest_list(n_shards, n_nodes, copies), _LONGEST_BLOCK))
    return assign_those_here(timing.reach(seconds, longest), n_shards, holders, planning, nodes)


def _plan_known(
    state: RoundState, nodes: tuple[int, ...], copies: int, planning: Planning, timing: Timing
) -> RoundPlan:
    """Return the plan for clients whose completion times are known."""
    if planning.deadline is None:
        raise ValueError("deadline must be given if the timing is; got None")
    n_shards = state.shard_examples.size
    last = state.plan if state.plan is not None and state.plan.everyone == nodes else None
    assignment = last.assignment if last is not None else None
    deadline = planning.deadline.initial if last is None or last.deadline is None else last.deadline
    if assignment is None:
        reach = timing.reach(deadline, longest_list(n_shards, len(nodes), copies))
        assignment = assign_those_here(reach, n_shards, copies, planning, nodes)
    return plan_with_code(state, planning, CodeForNodes(nodes, *assignment.code(), assignment))
