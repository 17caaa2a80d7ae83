"""Plan a code of the literature: it says itself who holds what, and knows nothing of speeds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedgc.codes import Code, MatrixCode, WorkLists, over_shards
from fedgc.deadline import RoundForecast
from fedgc.forecast import arrivals_by_deadline, work_of
from fedgc.round.before.foresee import foresee_round, outlook_of, ranked_by
from fedgc.round.before.plan_whole_updates import CodeForNodes, plan_with_code
from fedgc.round.before.planning import Planning
from fedgc.round.before.timing import SomeClients, list_timing
from fedgc.round.sizes import shard_gram
from fedgc.round.state import RoundPlan, RoundState


def plan_given_code(state: RoundState, nodes: tuple[int, ...], copies: int, planning: Planning) -> RoundPlan:
    """Return a plan with the code that is asked for, see :func:`fedgc.round.plan_round`.

    Each node has a row of the code, and shares its columns, runs of shards as many as nodes, with others; nodes beyond
    the number of shards, and those whose row is empty, have no part. A code that does not exist for the number of nodes
    (a regular graph of odd degree on an odd number, say) is made for one node less.

    Raises
    ------
    ValueError
        If it does not exist for that number either; if the schedule is "work-list" and its coefficients are not all
        one, since what is done of a row could not be told from what is not.
    """
    if planning.code is None:
        raise ValueError("code must be given; got None")
    n_shards = state.shard_examples.size
    n_clients = min(len(nodes), n_shards)
    # Coefficients follow the probabilities, who holds what does not, but for coefficients that happen to be zero.
    prob = state.reliability.straggle_prob(nodes)[:n_clients]
    if planning.timing is not None:  # what was learnt is of no account then, also for which coefficients are zero
        prob = np.full(n_clients, 0.5)
    try:
        code = _built(planning, prob, copies)
    except ValueError:
        if n_clients == 1:
            raise
        n_clients -= 1
        code = _built(planning, prob[:n_clients], copies)
    if planning.schedule == "work-list":
        return _plan_lists(state, nodes, planning, over_shards(code, n_shards))
    if planning.timing is not None and planning.deadline is not None:
        work = np.zeros(len(nodes))
        work[:n_clients] = work_of(over_shards(code, n_shards))
        known = planning.timing.straggle_prob(planning.deadline.initial, work)[:n_clients]
        code = _built(planning, np.clip(known, 0.0, 1.0 - 1e-12), copies)
    code = over_shards(code, n_shards)
    active = np.flatnonzero(work_of(code))  # a random code may leave a client without shards
    if active.size < code.n_clients:
        code = MatrixCode(code.sparse_matrix[active], allow_unheld=True)
    return plan_with_code(state, planning, CodeForNodes(nodes, code, active))


def _built(planning: Planning, straggle_prob: NDArray[np.float64], copies: int) -> Code:
    assert planning.code is not None
    rng = np.random.default_rng([planning.seed, straggle_prob.size])
    return planning.code(straggle_prob, min(copies, straggle_prob.size), rng)


def _plan_lists(state: RoundState, nodes: tuple[int, ...], planning: Planning, code: Code) -> RoundPlan:
    """Return the plan for clients that work down what the code gives them, and reply with what is done in time."""
    if (code.sparse_matrix.data != 1.0).any():
        raise ValueError("code must have coefficients of one for schedule 'work-list'; got others")
    if planning.deadline is None:
        raise ValueError("deadline must be given for schedule 'work-list'; got None")
    lists = [code.shards_of(client).tolist() for client in range(code.n_clients)]
    # Shards with the same holders change places, so that none is always last.
    labels = None if planning.redraw is False or code.blocks is None else code.blocks.of_shard
    segments = lists if planning.sums != "shard" else [[[shard] for shard in shards] for shards in lists]
    lists_code = WorkLists(segments, code.n_shards, interchangeable=labels)
    active = np.arange(code.n_clients)
    timing, known = list_timing(state, nodes, planning)
    gram = shard_gram(state.coherence, state.shard_examples, lists_code, state.variance_factor)

    def ahead(seconds: float) -> RoundForecast:
        ranks = ranked_by(planning.decoder)
        return foresee_round(state, timing, lists_code, ranks, gram, seconds, clients=active).round

    same = state.plan is not None and state.plan.everyone == nodes
    before = planning.deadline.initial if not same or state.plan is None else state.plan.deadline
    deadline = planning.deadline.initial if before is None else before
    if known and (not same or state.reconsiders):
        own = SomeClients(timing, len(nodes), active)
        deadline = planning.deadline.choose(outlook_of(state, lists_code, own, work_of(code), deadline, ahead))
    lengths = np.zeros(len(nodes), dtype=np.intp)
    lengths[active] = work_of(code)
    arrivals = arrivals_by_deadline(lists_code, timing.partial_reach(deadline, lengths)[active])
    calibrated = planning.decoder.calibrate(lists_code, arrivals, gram)
    away = state.reliability.straggle_prob(nodes)[active]
    chosen = tuple(nodes[client] for client in active)
    return RoundPlan(
        chosen,
        lists_code,
        away,
        arrivals,
        gram,
        calibrated,
        deadline,
        None,
        nodes,
        variance_factor=state.variance_factor,
    )
