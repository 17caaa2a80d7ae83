"""Plan work lists: everyone works down its list until the deadline, its own share first."""

from __future__ import annotations

import numpy as np

from fedgc.assignment import own_share
from fedgc.codes import Code
from fedgc.deadline import RoundForecast, mean_progress
from fedgc.forecast import Forecast, arrivals_by_deadline, work_of
from fedgc.round.before.choose_lists import Given, Lists, better_lists, first_lists, in_order
from fedgc.round.before.foresee import foresee_round, outlook_of, ranked_by
from fedgc.round.before.move_lists import carried_over, moved_lists
from fedgc.round.before.planning import Planning
from fedgc.round.before.timing import SomeClients, list_timing
from fedgc.round.sizes import shard_gram
from fedgc.round.state import RoundPlan, RoundState


def plan_work_lists(state: RoundState, nodes: tuple[int, ...], copies: int, planning: Planning) -> RoundPlan:
    """Return a plan of work lists, see :func:`fedgc.round.plan_round`."""
    if planning.deadline is None:
        raise ValueError("deadline must be given for schedule 'work-list'; got None")
    away = state.reliability.straggle_prob(nodes)
    timing, known = list_timing(state, nodes, planning)
    last = state.plan if state.plan is not None and state.plan.everyone == nodes else None
    deadline = planning.deadline.initial if last is None or last.deadline is None else last.deadline
    given = Given(state, nodes, copies, planning, timing, known, deadline)

    assignment = last.assignment if last is not None else carried_over(given)
    lists: Lists | None = None
    if assignment is None or assignment.schedule != "work-list":
        lists = first_lists(given)
        assignment = lists.assignment
    elif last is not None and state.reconsiders:
        choose = better_lists if planning.fetch_seconds is None else moved_lists
        lists = choose(given, assignment)
        assignment = lists.assignment
    if lists is not None:
        code, active = lists.code, lists.active
    else:
        assignment = in_order(given, assignment)
        code, active = assignment.code(segments=planning.sums, redraw=planning.redraw is not False)
    gram = shard_gram(state.coherence, state.shard_examples, code, state.variance_factor)

    # The present deadline is asked about more than once, and the decoder for the chosen one is wanted in the end.
    foreseen: dict[tuple[Code, float], Forecast] = {}
    ranks = ranked_by(planning.decoder)
    if lists is not None and lists.decoder is not None:
        foreseen[code, deadline] = Forecast(lists.forecast, lists.decoder)

    def ahead_of(one: Code, seconds: float) -> RoundForecast:
        if (one, seconds) not in foreseen:
            foreseen[one, seconds] = foresee_round(
                state, timing, one, ranks, gram, seconds, clients=active, early_end=planning.early_end
            )
        return foreseen[one, seconds].round

    redraw = True if planning.in_a_row else planning.redraw
    if redraw is None and last is not None and not state.reconsiders:
        redraw = last.code.interchangeable is not None
    elif redraw is None:
        # Of shards that are alike it never has more error: it asks less of the weights.
        redraw = not gram.differs_within(assignment.block_of_shard)
    if not redraw and code.interchangeable is not None:
        fixed, _ = assignment.code(segments=planning.sums, redraw=False)
        code = fixed if ahead_of(fixed, deadline).residual_error < ahead_of(code, deadline).residual_error else code

    if known and (last is None or state.reconsiders):
        share = np.array([own_share(assignment, int(client)) for client in active], dtype=np.intp)
        own = SomeClients(timing, len(nodes), active)
        ahead = outlook_of(state, code, own, share, deadline, lambda seconds: ahead_of(code, seconds))
        deadline = planning.deadline.choose(ahead)
    lengths = np.zeros(len(nodes), dtype=np.intp)
    lengths[active] = work_of(code)
    arrivals = arrivals_by_deadline(code, timing.partial_reach(deadline, lengths)[active])
    ready = foreseen[code, deadline].decoder if ranks is planning.decoder and (code, deadline) in foreseen else None
    calibrated = planning.decoder.calibrate(code, arrivals, gram) if ready is None else ready
    progress = mean_progress(timing, deadline, lengths)[active] if planning.in_a_row and known else None
    chosen = tuple(nodes[client] for client in active)
    return RoundPlan(
        chosen,
        code,
        away[active],
        arrivals,
        gram,
        calibrated,
        deadline,
        assignment,
        nodes,
        variance_factor=state.variance_factor,
        in_a_row=planning.in_a_row,
        mean_progress=None if progress is None else float(progress.mean()),
    )
