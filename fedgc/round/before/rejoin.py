"""Clients that come back under another node id: what is known of them, and what they hold, goes with them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from fedgc.assignment import for_clients
from fedgc.codes import FractionalRepetition
from fedgc.round.state import RoundPlan, RoundState


def rejoined(state: RoundState, old_of: Mapping[int, int], here: Collection[int]) -> RoundState:
    """Return the state after clients have come back.

    Parameters
    ----------
    state : RoundState
        What past rounds left.
    old_of : mapping of int to int
        The former node id by the new one.
    here : collection of int
        The nodes that take part in the coming round.

    Notes
    -----
    The former id keeps its history, since a runtime may take a minute to notice that a node has gone and asks it until
    then. In the last plan a former id that does not take part is replaced by the new one, so that the client's shards
    and its work list stay with it and nothing moves. With a former id that does take part the client counts as one
    more.
    """
    for new, old in old_of.items():
        state = replace(
            state,
            reliability=state.reliability.rejoined(old, new),
            completion_times=state.completion_times.rejoined(old, new),
            overheads=state.overheads.rejoined(old, new),
        )
    gone = {old: new for new, old in old_of.items() if old not in here and new in here}
    if state.plan is None or not gone:
        return state
    return replace(state, plan=_renamed(state.plan.undivided or state.plan, gone))


def _renamed(plan: RoundPlan, new_of: Mapping[int, int]) -> RoundPlan:
    """Return the last plan with other names for some nodes, to make the next one from.

    Clients are in the order of their node ids, in which blocks and assignments are stated too. The plan's arrivals and
    decoder stay as they were, so that it names no node to be asked: it cannot be used as it is.
    """
    everyone = [new_of.get(node, node) for node in plan.everyone]
    if len(set(everyone)) < len(everyone):
        return plan
    order = sorted(range(len(everyone)), key=everyone.__getitem__)
    code, assignment = plan.code, plan.assignment
    if assignment is not None:
        assignment = for_clients(assignment, order)
    elif code.blocks is not None:
        code = FractionalRepetition(code.blocks.of_client[order], code.blocks.of_shard)
    return replace(
        plan, everyone=tuple(everyone[place] for place in order), node_ids=(), code=code, assignment=assignment
    )
