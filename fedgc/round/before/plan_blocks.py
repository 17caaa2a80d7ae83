"""Plan whole blocks: every member computes all of its block and then replies."""

from __future__ import annotations

from functools import cache
from heapq import heapify, heapreplace

import numpy as np
from numpy.typing import NDArray

from fedgc.assignment import Assignment, fractional_repetition_blocks, longest_list
from fedgc.assignment.build import build
from fedgc.assignment.instance import make_instance
from fedgc.deadline import RoundForecast, Timing, time_to_target
from fedgc.round.before.plan_whole_updates import CodeForNodes, forecast_learnt, learnt_timing, plan_with_code
from fedgc.round.before.planning import Planning, assign_those_here
from fedgc.round.before.timing import LearntTiming
from fedgc.round.state import RoundPlan, RoundState

#: Limits may make a block as long as this, whatever the mean is, and how likely its members are to do it is known.
_LONGEST_BLOCK = 1000


def plan_blocks(state: RoundState, nodes: tuple[int, ...], copies: int, planning: Planning) -> RoundPlan:
    """Return a plan of fractional-repetition blocks, see :func:`fedgc.round.plan_round`.

    Until times have been seen, blocks without limits are of equal size; from then on they are sized by speed, as a plan
    for known times has them.
    """
    if planning.timing is not None:
        return _plan_known(state, nodes, copies, planning, planning.timing)
    kept = _kept(state, nodes, planning)
    seen = planning.deadline is not None and bool(state.completion_times.priors)
    if not seen and planning.constraints is None:
        code = fractional_repetition_blocks(state.reliability.straggle_prob(nodes), state.shard_examples.size, copies)
        new = plan_with_code(state, planning, CodeForNodes(nodes, code, np.arange(len(nodes))))
        return new if kept is None or _has_less_error(new, kept, planning.reassignment_gain) else kept
    if kept is not None and (planning.reassignment_gain >= 1.0 or not state.reconsiders):
        return kept
    found = [
        plan_with_code(state, planning, CodeForNodes(nodes, *assignment.code(), assignment))
        for assignment in _by_speed(state, nodes, copies, planning)
    ]

    @cache
    def ahead(plan: RoundPlan) -> RoundForecast:
        return forecast_learnt(state, planning, plan)

    new = found[0]
    if len(found) > 1:
        new = min(found, key=lambda one: time_to_target(ahead(one)))
    if kept is None:
        return new
    gain = planning.reassignment_gain
    pays = _is_sooner(ahead(new), ahead(kept), gain) if seen else _has_less_error(new, kept, gain)
    return new if pays else kept


def _kept(state: RoundState, nodes: tuple[int, ...], planning: Planning) -> RoundPlan | None:
    """Return a plan with the blocks of the last round, None if other nodes took part in it."""
    last = state.plan
    if last is None or last.everyone != nodes or last.code.blocks is None:
        return None
    if last.assignment is None:
        given = CodeForNodes(nodes, last.code, np.arange(len(nodes)))
    elif last.node_ids:
        given = CodeForNodes(nodes, last.code, np.searchsorted(nodes, last.node_ids), last.assignment)
    else:  # a node came back under another id: see fedgc.round.before.rejoin
        given = CodeForNodes(nodes, *last.assignment.code(), last.assignment)
    return plan_with_code(state, planning, given)


def _has_less_error(new: RoundPlan, kept: RoundPlan, gain: float) -> bool:
    """Return whether new blocks are predicted to have less residual error by more than this fraction."""
    before, after = kept.decoder.residual_error, new.decoder.residual_error
    return before is not None and after is not None and after < (1.0 - gain) * before


def _is_sooner(new: RoundForecast, kept: RoundForecast, gain: float) -> bool:
    """Return whether new blocks are predicted to reach the target sooner, by what so much less error would be worth.

    Each has the deadline that its rule chooses for it. Where rounds are as long, this is less residual error by more
    than the gain.
    """
    # An error that is smaller by the gain is a sensitivity that is.
    return time_to_target(new) < time_to_target(kept, 1.0 - gain)


def _by_speed(state: RoundState, nodes: tuple[int, ...], copies: int, planning: Planning) -> list[Assignment]:
    """Return blocks that keep the constraints, if any, for clients of which no more is known than was learnt.

    How large each block is depends on how fast its members are. While no times have been seen, the deadline is taken to
    be about right for a mean share, without which the most reliable block would be given all shards. By a deadline far
    longer than the work takes a few clients could do all of it, and the rest would only copy them; so blocks are found
    for an earlier end as well, by which all copies can just be done if everyone takes part.
    """
    if planning.deadline is None:
        raise ValueError("deadline must be given for constraints; got None")
    n_shards, n_nodes = state.shard_examples.size, len(nodes)
    before = None if state.plan is None else state.plan.deadline
    seconds = planning.deadline.initial if before is None else before
    timing = learnt_timing(state, nodes)
    if not timing.has_seen:
        guess = planning.deadline.initial * n_nodes / (1.5 * copies * n_shards)
        timing = LearntTiming(
            state.completion_times, nodes, state.reliability.straggle_prob(nodes), guess, rounds=state.rounds
        )
    # As in blocks of equal size, what is left over when all blocks have their members joins some of them.
    most = -(-n_nodes // (n_nodes // copies))
    holders = copies if most == copies else (copies, most)
    longest = longest_list(n_shards, n_nodes, copies)
    if planning.constraints is not None:
        # Where limits leave few who may hold many shards, a block is far larger than the mean.
        longest = min(n_shards, max(longest, _LONGEST_BLOCK))
    tables, ends = timing.tabulated(), [seconds]
    if planning.constraints is None:
        earlier = seconds / 2.0
        while tables.reach(earlier, longest)[:, 1:].sum() >= copies * n_shards:
            ends = [seconds, earlier]
            earlier /= 2.0
    found = []
    for end in ends:
        reach = tables.reach(end, longest)
        blocks = assign_those_here(reach, n_shards, holders, planning, nodes)
        found.append(blocks if planning.constraints is not None else _with_everyone(blocks, reach))
    return found


def _with_everyone(assignment: Assignment, reach: NDArray[np.float64]) -> Assignment:
    """Return the assignment with every client that it leaves out as one more member of the block that costs most.

    A client that is never asked cannot show that it has come back or become faster, so a run that learns leaves nobody
    out; in a plan for known times, where nothing is to be learnt, another member would only compute for nothing.
    """
    idle = np.flatnonzero(assignment.block_of_client < 0)
    if idle.size == 0:
        return assignment
    sizes, block_of_client = np.bincount(assignment.block_of_shard), assignment.block_of_client.copy()
    place = np.minimum(sizes, reach.shape[1] - 1)
    active = np.flatnonzero(block_of_client >= 0)
    prob = np.ones(sizes.size)
    np.multiply.at(prob, block_of_client[active], 1.0 - reach[active, place[block_of_client[active]]])
    # Only one block's cost changes at a time, so the dearest is kept at the top: of equal ones the first.
    dearest = [(-cost, block) for block, cost in enumerate((sizes * prob / np.maximum(1.0 - prob, 1e-12)).tolist())]
    heapify(dearest)
    for client in idle:
        block = dearest[0][1]
        block_of_client[client] = block
        prob[block] *= min(1.0 - reach[client, place[block]], 0.99)
        heapreplace(dearest, (-float(sizes[block] * prob[block] / max(1.0 - prob[block], 1e-12)), block))
    by_block, number = np.argsort(block_of_client, kind="stable"), np.bincount(block_of_client)
    within, most = np.arange(by_block.size) - np.repeat(np.cumsum(number) - number, number), int(number.max())
    padded = np.full((sizes.size, most), assignment.n_clients, dtype=np.intp)
    padded[block_of_client[by_block], within] = by_block
    instance = make_instance(reach, assignment.n_shards, (1, most), assignment.schedule, None)
    return build(instance, padded, assignment.block_of_shard)


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
