"""Plan a round: who computes what until when, from past rounds only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fedgc.coherence import KnownCoherence
from fedgc.decoders import AUTO
from fedgc.round.before.bit_budget import with_bit_budget
from fedgc.round.before.loads import first_load
from fedgc.round.before.plan_blocks import plan_blocks
from fedgc.round.before.plan_given_code import plan_given_code
from fedgc.round.before.plan_work_lists import plan_work_lists
from fedgc.round.before.planning import Planning, planning_for
from fedgc.round.sizes import shard_gram
from fedgc.round.state import RoundPlan, RoundState

#: Variance factors that differ by less than this part of them need no other weights.
_SAME_ROUNDING = 0.01


def plan_round(state: RoundState, node_ids: Sequence[int], planning: Planning) -> RoundPlan:
    """Assign shards to the nodes of this round, choose its deadline and calibrate the decoder.

    Parameters
    ----------
    state : RoundState
        What past rounds left.
    node_ids : sequence of int
        The nodes that take part, without repetition. Their order does not matter.
    planning : Planning
        How.

    Raises
    ------
    ValueError
        If no node takes part or one is named twice; if a budget of bits is too small for the blocks.
    InfeasibleAssignmentError
        If the constraints cannot be met.
    """
    nodes = tuple(sorted(node_ids))
    if not nodes or len(set(nodes)) != len(nodes):
        raise ValueError(f"node_ids must be at least one distinct id; got {list(node_ids)}")
    if state.plan is not None and state.plan.undivided is not None:
        state = replace(state, plan=state.plan.undivided)
    nothing_is_learnt = planning.timing is not None and isinstance(state.coherence, KnownCoherence)
    if nothing_is_learnt and state.plan is not None and state.plan.everyone == nodes and state.plan.node_ids:
        plan = _with_rounding(state.plan, state, planning)
    else:
        copies = max(min(present_load(planning, state.plan), len(nodes)), -(-len(nodes) // state.shard_examples.size))
        make = plan_work_lists if planning.schedule == "work-list" else plan_blocks
        if planning.code is not None:
            make = plan_given_code
        plan = make(state, nodes, copies, planning_for(planning, nodes))
    plan = plan.in_round(state.rounds + 1, planning.seed)
    if planning.bit_budget is None or state.rounding_by_bits is None:
        return plan
    return with_bit_budget(plan, planning.bit_budget, state.rounding_by_bits, planning.decoder)


def _with_rounding(plan: RoundPlan, state: RoundState, planning: Planning) -> RoundPlan:
    """Return a plan with the weights for the rounding that has been told since it was made, if that is another."""
    factor, before = state.variance_factor, plan.variance_factor or 0.0
    if factor is None or abs(factor - before) <= _SAME_ROUNDING * factor:
        return plan
    code = plan.code if plan.base is None else plan.base.code
    gram = shard_gram(state.coherence, state.shard_examples, code, factor)
    decoder = planning.decoder.calibrate(code, plan.arrivals, gram)
    return replace(plan, code=code, gram=gram, decoder=decoder, base=None, variance_factor=factor)


def present_load(planning: Planning, plan: RoundPlan | None) -> int:
    """Return the copies of each shard that are asked for, or where that is left open, those that there are at least.

    Parameters
    ----------
    planning : Planning
        How rounds are planned.
    plan : RoundPlan or None
        The last plan, if there is one.
    """
    if planning.load != AUTO or plan is None or plan.assignment is None:
        return first_load(planning.load)
    return plan.assignment.least_holders
