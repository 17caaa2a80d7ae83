"""Plan a code of the literature: it says itself who holds what, and knows nothing of speeds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedgc.codes import Code, MatrixCode, over_shards
from fedgc.forecast import work_of
from fedgc.round.choices import Planning
from fedgc.round.state import RoundPlan, RoundState
from fedgc.round.with_code import CodeForNodes, plan_with_code


def plan_given_code(state: RoundState, nodes: tuple[int, ...], copies: int, planning: Planning) -> RoundPlan:
    """Return a plan with the code that is asked for, see :func:`fedgc.round.plan_round`.

    Each node has a row of the code, and shares its columns, runs of shards as many as nodes, with others; nodes beyond
    the number of shards, and those whose row is empty, have no part. A code that does not exist for the number of nodes
    (a regular graph of odd degree on an odd number, say) is made for one node less.

    Raises
    ------
    ValueError
        If it does not exist for that number either.
    """
    if planning.code is None:
        raise ValueError("code must be given; got None")
    n_shards = state.shard_examples.size
    n_clients = min(len(nodes), n_shards)
    # Coefficients follow the probabilities, who holds what does not, but for coefficients that happen to be zero.
    prob = state.reliability.straggle_prob(nodes)[:n_clients]
    try:
        code = _built(planning, prob, copies)
    except ValueError:
        if n_clients == 1:
            raise
        n_clients -= 1
        code = _built(planning, prob[:n_clients], copies)
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
