"""What a strategy says of itself before it starts, in the form of Flower's own summaries."""

from __future__ import annotations

from collections.abc import Sequence

from fedgc.deadline import FixedDeadline
from fedgc.round import Planning, RoundState, plan_round


def summary_lines(
    planning: Planning, state: RoundState, nodes: Sequence[int], first_deadline: float | None
) -> list[str]:
    """Return the options, and what a round with the nodes that are there would look like."""
    lines = [
        f"Shards: {state.shard_examples.size}, each held by {planning.load} clients",
        f"Schedule: {planning.schedule}",
        f"Decoder: {planning.decoder.name}{'' if state.memory is None else ', of changes since the last update'}",
    ]
    if planning.deadline is not None:
        initial = planning.deadline.initial
        rule = "" if isinstance(planning.deadline, FixedDeadline) else f"{planning.deadline.name}, at first "
        lines.append(f"Deadline: {rule}{initial:g} s (first round: {first_deadline or initial:g} s)")
    lines.append(f"Plan: {_first_plan(planning, state, nodes)}")
    marks = ["├──"] * (len(lines) - 1) + ["└──"]
    settings = [f"\t│\t{mark} {line}" for mark, line in zip(marks, lines, strict=True)]
    return ["\t├──> Gradient coding settings:", *settings]


def _first_plan(planning: Planning, state: RoundState, nodes: Sequence[int]) -> str:
    if not nodes:
        return "made when nodes are there"
    try:
        plan = plan_round(state, nodes, planning)
    except ValueError as error:  # a run says so itself, where it must be planned
        return str(error)
    error_ = plan.decoder.residual_error
    predicted = "unknown" if error_ is None else f"{error_:.3g}"
    load = f"load {plan.code.load:.3g}"
    return f"{len(plan.node_ids)} of {len(nodes)} nodes, {load}, predicted residual error {predicted}"
