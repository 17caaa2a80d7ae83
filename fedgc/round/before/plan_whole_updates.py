"""The plan of whole updates for one code: its deadline, its probabilities, its weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedgc.arrivals import ArrivalModel, IndependentArrivals
from fedgc.assignment import Assignment
from fedgc.codes import Code
from fedgc.deadline import Outlook, RoundForecast, Timing
from fedgc.forecast import work_of
from fedgc.round.before.failure_domains import arrivals_with_outages
from fedgc.round.before.foresee import foresee_round, outlook_of, ranked_by
from fedgc.round.before.planning import Planning
from fedgc.round.before.timing import LearntTiming
from fedgc.round.sizes import shard_gram
from fedgc.round.state import RoundPlan, RoundState


@dataclass(frozen=True, eq=False)
class CodeForNodes:
    """A code whose clients do all that they hold before they reply.

    Attributes
    ----------
    nodes : tuple of int
        All nodes, ascending.
    code : Code
        Who computes what.
    active : ndarray of int, shape (code.n_clients,)
        Which of the nodes its clients are.
    assignment : Assignment or None
        What it was made from.
    """

    nodes: tuple[int, ...]
    code: Code
    active: NDArray[np.intp]
    assignment: Assignment | None = None

    @property
    def work(self) -> NDArray[np.intp]:
        """Number of shards of each node, (n_nodes,)."""
        work = np.zeros(len(self.nodes), dtype=np.intp)
        work[self.active] = work_of(self.code)
        return work


def plan_with_code(state: RoundState, planning: Planning, given: CodeForNodes) -> RoundPlan:
    """Choose the deadline for a code, and calibrate the decoder.

    Parameters
    ----------
    state : RoundState
        What past rounds left.
    planning : Planning
        How.
    given : CodeForNodes
        The code.
    """
    code, active = given.code, given.active
    by_times = True
    if planning.timing is None:
        deadline, prob, by_times = _learnt(state, planning, given)
    else:
        deadline, prob = _known(state, planning, given, planning.timing)
    gram = shard_gram(state.coherence, state.shard_examples, code, state.variance_factor)
    domain, arrivals = _arrivals(state, planning, given, prob[active], by_times=by_times)
    calibrated = planning.decoder.calibrate(code, arrivals, gram)
    return RoundPlan(
        node_ids=tuple(given.nodes[client] for client in active),
        code=code,
        straggle_prob=prob[active] if domain is None else 1.0 - arrivals.row_probability,
        arrivals=arrivals,
        gram=gram,
        decoder=calibrated,
        deadline=deadline,
        assignment=given.assignment,
        everyone=given.nodes,
        domain=domain,
        variance_factor=state.variance_factor,
    )


def learnt_timing(state: RoundState, nodes: tuple[int, ...]) -> LearntTiming:
    """Return what past rounds say of when nodes will have done all of so much work.

    Who was there in the last rounds counts, also in those that times have not been fitted to yet. How often a client
    came by the deadline (:class:`fedgc.reliability.ReliabilityPosterior`) does not: it is about other work, and what
    it misses for being slow the times tell already.
    """
    return LearntTiming(state.completion_times.noting(state.new_times), nodes, None, np.inf, rounds=state.rounds)


def forecast_learnt(state: RoundState, planning: Planning, plan: RoundPlan) -> RoundForecast:
    """Return what is to be expected of a plan's rounds, from the times that past rounds have shown.

    Raises
    ------
    ValueError
        If the plan has no deadline.
    """
    if plan.deadline is None:
        raise ValueError("deadline must be given for a forecast; got None")
    timing = learnt_timing(state, plan.node_ids)
    return foresee_round(state, timing, plan.code, planning.decoder, plan.gram, plan.deadline).round


def _arrivals(
    state: RoundState, planning: Planning, given: CodeForNodes, prob: NDArray[np.float64], *, by_times: bool
) -> tuple[NDArray[np.intp] | None, ArrivalModel]:
    """Return the failure domain of each client, if any are named, and what may come of them.

    Times take an outage for a client's own absence, like any other; outcomes are learnt apart from outages
    (:mod:`fedgc.round.after.learn_outages`).
    """
    if planning.failure_domains is None or state.outages is None:
        return None, IndependentArrivals(prob)
    domain = planning.failure_domains.of_client[given.active]
    outages = state.outages.for_domains(planning.failure_domains.n_domains).outage_prob
    return domain, arrivals_with_outages(given.code, prob, domain, outages, includes_outages=by_times)


def _learnt(
    state: RoundState, planning: Planning, given: CodeForNodes
) -> tuple[float | None, NDArray[np.float64], bool]:
    """Return the deadline, the probabilities to miss it, as past rounds suggest them, and whether times say so."""
    rule = planning.deadline
    # Past outcomes are about past deadlines and past work: where a rule changes the deadline, or blocks are sized by
    # speed, the times have to tell. With a fixed deadline and blocks of equal size, outcomes tell without a model.
    settled = rule is not None and not rule.changes and given.assignment is None
    if rule is None or settled or not state.completion_times.priors:
        return None if rule is None else rule.initial, state.reliability.straggle_prob(given.nodes), False
    timing = learnt_timing(state, given.nodes)
    deadline = rule.initial if state.plan is None else state.plan.deadline
    if not _same_nodes(state, given) or state.reconsiders:
        deadline = rule.choose(_outlook(state, planning, given, timing.tabulated(), deadline))
    return deadline, timing.straggle_prob(deadline or rule.initial, given.work), True


def _known(
    state: RoundState, planning: Planning, given: CodeForNodes, timing: Timing
) -> tuple[float, NDArray[np.float64]]:
    """Return the same for clients whose completion times are known."""
    rule = planning.deadline
    if rule is None:
        raise ValueError("deadline must be given if the timing is; got None")
    same = _same_nodes(state, given)
    deadline = rule.initial if not same or state.plan is None or state.plan.deadline is None else state.plan.deadline
    if not same or state.reconsiders:
        deadline = rule.choose(_outlook(state, planning, given, timing, deadline))
    return deadline, np.clip(timing.straggle_prob(deadline, given.work), 0.0, 1.0 - 1e-12)


def _same_nodes(state: RoundState, given: CodeForNodes) -> bool:
    return state.plan is not None and state.plan.everyone == given.nodes


def _outlook(
    state: RoundState, planning: Planning, given: CodeForNodes, timing: Timing, before: float | None
) -> Outlook:
    gram = shard_gram(state.coherence, state.shard_examples, given.code, state.variance_factor)

    ranks = ranked_by(planning.decoder)

    def ahead(seconds: float) -> RoundForecast:
        return foresee_round(state, timing, given.code, ranks, gram, seconds, clients=given.active).round

    return outlook_of(state, given.code, timing, given.work, before, ahead)
