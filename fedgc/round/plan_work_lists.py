"""Plan work lists: everyone works down its list until the deadline, its own share first."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedgc.assignment import (
    Assignment,
    InfeasibleAssignmentError,
    for_clients,
    longest_list,
    own_share,
    reassign,
    residual_error,
    with_backups,
)
from fedgc.codes import Code
from fedgc.deadline import Outlook, RoundForecast, Timing
from fedgc.forecast import arrivals_by_deadline, forecast_round
from fedgc.round.choices import Planning, assign_those_here, time_to_reconsider
from fedgc.round.sizes import shard_gram
from fedgc.round.state import RoundPlan, RoundState
from fedgc.round.timing import SomeClients, list_timing


def plan_work_lists(state: RoundState, nodes: tuple[int, ...], copies: int, planning: Planning) -> RoundPlan:
    """Return a plan of work lists, see :func:`fedgc.round.plan_round`."""
    n_shards = state.shard_examples.size
    if planning.deadline is None:
        raise ValueError("deadline must be given for schedule 'work-list'; got None")
    away = state.reliability.straggle_prob(nodes)
    timing, known = list_timing(state, nodes, planning)
    longest = longest_list(n_shards, len(nodes), copies)
    last = state.plan if state.plan is not None and state.plan.everyone == nodes else None
    deadline = planning.deadline.initial if last is None or last.deadline is None else last.deadline

    def new_assignment(seconds: float) -> Assignment:
        reach = timing.reach(seconds, longest)
        return with_everyone(assign_those_here(reach, n_shards, copies, planning, nodes), reach)

    def with_everyone(found: Assignment, reach: NDArray[np.float64]) -> Assignment:
        # Without redundancy a client that is left out has to stay out, or there would be some; but a run that learns
        # must go on asking everyone.
        alone = copies == 1 and planning.timing is not None
        return found if alone or planning.constraints is not None else with_backups(found, reach)

    assignment = last.assignment if last is not None else _carried_over(state, nodes, copies, planning, timing)
    if assignment is None or assignment.schedule != "work-list":
        assignment = new_assignment(deadline)
    elif time_to_reconsider(state.rounds) and planning.fetch_seconds is None:
        better = new_assignment(deadline)
        now = residual_error(assignment, timing.reach(deadline, longest))
        if better.residual_error < (1.0 - planning.reassignment_gain) * now:
            assignment = better
    elif time_to_reconsider(state.rounds):
        reach = timing.reach(deadline, longest)
        rounds_left = max(planning.rounds - state.rounds, 0)
        moved = _moved(assignment, reach, planning, holders=copies, deadline=deadline, rounds_left=rounds_left)
        assignment = with_everyone(moved, reach)
    code, active = assignment.code(segments=planning.sums)
    gram = shard_gram(state.coherence, state.shard_examples, code)

    def ahead(seconds: float) -> RoundForecast:
        return forecast_round(timing, code, planning.decoder, gram, seconds, clients=active).round

    def error_of(one: Code) -> float:
        return forecast_round(timing, one, planning.decoder, gram, deadline, clients=active).round.residual_error

    redraw = planning.redraw
    if redraw is None and last is not None and not time_to_reconsider(state.rounds):
        redraw = last.code.interchangeable is not None
    elif redraw is None and not gram.differs_within(assignment.block_of_shard):
        redraw = True  # of shards that are alike it never has more error: it asks less of the weights
    if not redraw:
        fixed, _ = assignment.code(segments=planning.sums, redraw=False)
        code = fixed if redraw is False or error_of(fixed) < error_of(code) else code

    if known and (last is None or time_to_reconsider(state.rounds)):
        share = np.array([own_share(assignment, int(client)) for client in active], dtype=np.intp)
        own = SomeClients(timing, len(nodes), active)
        deadline = planning.deadline.choose(Outlook(own, share, n_shards, deadline, ahead))
    lengths = np.array([shards.size for shards in assignment.lists], dtype=np.intp)
    arrivals = arrivals_by_deadline(code, timing.partial_reach(deadline, lengths)[active])
    calibrated = planning.decoder.calibrate(code, arrivals, gram)
    chosen = tuple(nodes[client] for client in active)
    return RoundPlan(chosen, code, away[active], arrivals, gram, calibrated, deadline, assignment, nodes)


def _carried_over(
    state: RoundState, nodes: tuple[int, ...], copies: int, planning: Planning, timing: Timing
) -> Assignment | None:
    """Return the last assignment for changed nodes: shards of those who left go to others, the rest mostly stay.

    With constraints, which are stated for given nodes, everything is assigned anew.
    """
    old = state.plan
    if old is None or old.assignment is None or old.deadline is None or planning.constraints is not None:
        return None
    everyone = sorted({*old.everyone, *nodes})
    if old.assignment.schedule != "work-list" or not set(old.everyone) & set(nodes):
        return None
    place = {node: client for client, node in enumerate(old.everyone)}
    n_shards, here = old.assignment.n_shards, np.isin(everyone, nodes)
    longest = longest_list(n_shards, len(nodes), copies)
    reach = np.zeros((len(everyone), longest + 1))
    reach[:, 0] = 1.0
    reach[here] = timing.reach(old.deadline, longest)
    former = for_clients(old.assignment, [place.get(node, -1) for node in everyone])
    try:
        changed = _moved(
            former,
            reach,
            planning,
            holders=(1, copies + 1),
            deadline=old.deadline,
            rounds_left=max(planning.rounds - state.rounds, 0),
            alive=here,
        )
    except InfeasibleAssignmentError:
        return None
    return with_backups(for_clients(changed, np.flatnonzero(here)), reach[here])


def _moved(
    assignment: Assignment,
    reach: NDArray[np.float64],
    planning: Planning,
    *,
    holders: int | tuple[int, int],
    deadline: float,
    rounds_left: int,
    alive: NDArray[np.bool_] | None = None,
) -> Assignment:
    """Return the assignment with those shards moved for which it pays; all clients fetch at once."""
    fetch = planning.fetch_seconds
    return reassign(
        assignment,
        reach,
        holders=holders,
        round_seconds=deadline,
        rounds_left=rounds_left,
        seconds_per_shard=deadline / assignment.n_shards if fetch is None else fetch / reach.shape[0],
        alive=alive,
        constraints=planning.constraints,
    )
