"""Plan whole blocks: every member computes all of its block and then replies."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedgc.arrivals import IndependentArrivals
from fedgc.assignment import Assignment, fractional_repetition_blocks, longest_list
from fedgc.codes import Code
from fedgc.deadline import FixedDeadline, Outlook, RoundForecast, Timing
from fedgc.forecast import forecast_round, work_of
from fedgc.round.choices import Planning, assign_those_here, time_to_reconsider
from fedgc.round.sizes import shard_gram
from fedgc.round.state import RoundPlan, RoundState
from fedgc.round.timing import LearntTiming

#: Limits may make a block as long as this, whatever the mean is, and how likely its members are to do it is known.
_LONGEST_BLOCK = 1000


def plan_blocks(state: RoundState, nodes: tuple[int, ...], copies: int, planning: Planning) -> RoundPlan:
    """Return a plan of fractional-repetition blocks, see :func:`fedgc.round.plan_round`."""
    n_shards = state.shard_examples.size
    if planning.timing is not None:
        return _plan_known(state, nodes, copies, planning, planning.timing)
    straggle_prob = state.reliability.straggle_prob(nodes)
    last = state.plan if state.plan is not None and state.plan.everyone == nodes else None
    # Past outcomes are about past deadlines: where the rule changes them the times have to tell, and who was there in
    # the last rounds counts, also in those that times have not been fitted to yet. A fixed deadline needs no fit.
    rule = None if isinstance(planning.deadline, FixedDeadline) else planning.deadline
    timing: LearntTiming | None = None
    if rule is not None and state.completion_times.priors:
        times = state.completion_times.noting(state.new_times)
        timing = LearntTiming(times, nodes, None, np.inf, rounds=state.rounds)

    def with_code(code: Code, active: NDArray[np.intp], assignment: Assignment | None) -> RoundPlan:
        gram = shard_gram(state.coherence, state.shard_examples, code)
        deadline = None if planning.deadline is None else planning.deadline.initial
        prob = straggle_prob
        if rule is not None and timing is not None:
            work = np.zeros(len(nodes), dtype=np.intp)
            work[active] = work_of(code)
            deadline = before = rule.initial if state.plan is None else state.plan.deadline
            if last is None or time_to_reconsider(state.rounds):
                tables = timing.tabulated()

                def ahead(seconds: float) -> RoundForecast:
                    return forecast_round(tables, code, planning.decoder, gram, seconds, clients=active).round

                deadline = rule.choose(Outlook(tables, work, n_shards, before, ahead))
            prob = timing.straggle_prob(deadline or rule.initial, work)
        prob = prob[active]
        arrivals = IndependentArrivals(prob)
        calibrated = planning.decoder.calibrate(code, arrivals, gram)
        chosen = tuple(nodes[client] for client in active)
        return RoundPlan(chosen, code, prob, arrivals, gram, calibrated, deadline, assignment, nodes)

    def with_assignment(assignment: Assignment) -> RoundPlan:
        return with_code(*assignment.code(), assignment)

    if planning.constraints is not None:
        kept = None if last is None or last.assignment is None else with_assignment(last.assignment)
        if kept is not None and not time_to_reconsider(state.rounds):
            return kept
        balanced = with_assignment(_within_limits(state, nodes, copies, planning))
    else:
        everyone = np.arange(len(nodes))
        old = last.code if last is not None and last.code.blocks is not None else None
        kept = None if old is None else with_code(old, everyone, None)
        balanced = with_code(fractional_repetition_blocks(straggle_prob, n_shards, copies), everyone, None)
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
    code, active = assignment.code()
    work = np.zeros(len(nodes))
    work[active] = work_of(code)
    gram = shard_gram(state.coherence, state.shard_examples, code)

    def ahead(seconds: float) -> RoundForecast:
        return forecast_round(timing, code, planning.decoder, gram, seconds, clients=active).round

    if last is None or time_to_reconsider(state.rounds):
        deadline = planning.deadline.choose(Outlook(timing, work.astype(np.intp), n_shards, deadline, ahead))
    prob = np.clip(timing.straggle_prob(deadline, work)[active], 0.0, 1.0 - 1e-12)
    arrivals = IndependentArrivals(prob)
    calibrated = planning.decoder.calibrate(code, arrivals, gram)
    chosen = tuple(nodes[client] for client in active)
    return RoundPlan(chosen, code, prob, arrivals, gram, calibrated, deadline, assignment, nodes)
