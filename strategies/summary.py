"""What a strategy says of itself before it starts, in the form of Flower's own summaries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from fedgc.assignment import own_share
from fedgc.codes import WorkLists
from fedgc.decoders import AUTO
from fedgc.round import Planning, RoundPlan, RoundState, first_load, plan_round

#: So many blocks, work lists, and members or shards of one are named.
_BLOCKS, _MEMBERS = 6, 12


def summary_lines(
    planning: Planning, state: RoundState, nodes: Sequence[int], first_deadline: float | None
) -> list[str]:
    """Return the options, and what the first round would look like as far as is known.

    Parameters
    ----------
    planning : Planning
        How rounds are planned.
    state : RoundState
        What is known.
    nodes : sequence of int
        The nodes that are there. If there are none yet, the plan is for the clients whose times are given, numbered
        as there, or else for those whose reliability is: an earlier run's.
    first_deadline : float or None
        Deadline of the first round, if it has another than the others.
    """
    holders = f"{first_load(planning.load)} clients{' at first' if planning.load == AUTO else ''}"
    lines = [
        f"Shards: {state.shard_examples.size}, each held by {holders}",
        f"Schedule: {planning.schedule}",
        f"Decoder: {planning.decoder.name}{'' if state.memory is None else ', of changes since the last update'}",
    ]
    if planning.deadline is not None:
        initial = planning.deadline.initial
        rule = f"{planning.deadline.name}, at first " if planning.deadline.changes else ""
        lines.append(f"Deadline: {rule}{initial:g} s (first round: {first_deadline or initial:g} s)")
    lines += _first_plan(planning, state, nodes)
    marks = ["├──"] * (len(lines) - 1) + ["└──"]
    settings = [f"\t│\t{mark} {line}" for mark, line in zip(marks, lines, strict=True)]
    return ["\t├──> Gradient coding settings:", *settings]


def _first_plan(planning: Planning, state: RoundState, nodes: Sequence[int]) -> Iterator[str]:
    name = "node"
    if not nodes and planning.timing is not None:
        name, nodes = "client", range(planning.timing.straggle_prob(_some_deadline(planning), 1.0).size)
    elif not nodes:
        nodes = list(state.reliability.clients.index)
    if not nodes:
        yield "Plan: made when nodes are there"
        return
    try:
        plan = plan_round(state, nodes, planning)
    except ValueError as why:  # a run says so itself, where it must be planned
        yield f"Plan: {why}"
        return
    error = plan.residual_error
    predicted = "unknown" if error is None else f"{error:.3g}"
    asked = f"{len(plan.node_ids)} of {len(nodes)} {name}s"
    until = "" if plan.deadline is None else f", deadline {plan.deadline:.3g} s"
    yield f"Plan: {asked}, load {plan.code.load:.3g}, predicted residual error {predicted}{until}"
    if plan.bits is not None:
        numbers, clients = np.unique(plan.bits, return_counts=True)
        parts = [f"{bits} for {count}" for bits, count in zip(numbers.tolist(), clients.tolist(), strict=True)]
        yield f"Bits per entry: {', '.join(parts)} {name}s, {int(plan.bits.sum())} in all"
    yield from _at_most(_BLOCKS, list(_blocks(plan, name)), "blocks")
    if isinstance(plan.code, WorkLists):
        yield from _at_most(_BLOCKS, list(_work_lists(plan, name)), "work lists")


def _some_deadline(planning: Planning) -> float:
    return 1.0 if planning.deadline is None else planning.deadline.initial


def _blocks(plan: RoundPlan, name: str) -> Iterator[str]:
    """Tell who serves each block of which shards."""
    if plan.assignment is not None:
        everyone = plan.everyone
        pairs = [(block.members, block.shards) for block in plan.assignment.blocks]
    elif plan.code.blocks is not None:
        everyone, blocks = plan.node_ids, plan.code.blocks
        pairs = [
            (tuple(np.flatnonzero(blocks.of_client == k)), tuple(np.flatnonzero(blocks.of_shard == k)))
            for k in range(blocks.n_blocks)
        ]
    else:
        return
    for k, (members, shards) in enumerate(pairs):
        yield f"Block {k}: {_named(name, [everyone[m] for m in members])} with {_named('shard', shards)}"


def _work_lists(plan: RoundPlan, name: str) -> Iterator[str]:
    """Tell each client's list, its own share before what it does for others."""
    when = "" if plan.code.interchangeable is None else " in round 1"
    for client, node in enumerate(plan.node_ids):
        shards = plan.code.shards_of(client).tolist()
        own = len(shards) if plan.assignment is None else own_share(plan.assignment, plan.everyone.index(node))
        parts = [_few(part) for part in (shards[:own], shards[own:]) if part]
        yield f"Work list of {name} {node}{when}: {', then backup work: '.join(parts)}"


def _named(what: str, numbers: Sequence[int]) -> str:
    return f"{what}{'' if len(numbers) == 1 else 's'} {_few(numbers)}"


def _few(numbers: Sequence[int]) -> str:
    more = len(numbers) - _MEMBERS
    named = ", ".join(str(number) for number in numbers[:_MEMBERS])
    return f"{named} and {more} more" if more > 0 else named


def _at_most(limit: int, lines: Sequence[str], what: str) -> Iterator[str]:
    yield from lines[:limit]
    if len(lines) > limit:
        yield f"... and {len(lines) - limit} more {what}"
