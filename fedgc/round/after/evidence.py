"""What a round shows of its clients: who came, how long they took, and what silence says."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from fedgc.codes import WorkLists
from fedgc.completion_times import TimeObservation
from fedgc.round.state import CodedUpdate, RoundPlan, RoundState

#: Arrivals are surprising if they are away from what was expected by so many standard deviations and by such a part of
#: it. In a large fleet chance has next to no part in their number, and to be off by a tenth is no reason.
_SURPRISING, _SURPRISING_PART = 3.0, 0.5


def outcomes_seen(
    state: RoundState,
    plan: RoundPlan,
    replies: Mapping[int, CodedUpdate],
    waited: float | None,
    failed: Collection[int] = (),
) -> dict[int, bool | float]:
    """Return who came, and how likely those would have who were silent when the round ended early.

    Such a client has not been seen to miss: counted as a miss it would look less reliable than it is, left out it would
    look more reliable, since only its successes would count. With a the probability to come by the deadline and a' to
    come by the early end, it would still have come with probability ``(a - a') / (1 - a')``.

    Of a client that has been silent for as long as is remembered, its silences are all that its own times are fitted
    to, which makes it so slow that an early end never tells anything: it would keep the reliability that it began with
    for ever. So its a' is that of a client whose times are like the fleet's, and every silence makes it a little less
    likely to come. That it is merely slow, and would come by the deadline, cannot be told from that it never comes;
    the block of a client that is always cut off has others to count on, so that such a doubt costs little.

    That a is what past outcomes say of the client, also where a plan goes by times: never more than a, what silence is
    taken for then cannot make it more reliable, whereas times may think well of a stranger only because its block is
    small.

    A client that has failed has missed, whenever the round ended.
    """
    outcomes: dict[int, bool | float] = {node: client in replies for client, node in enumerate(plan.node_ids)}
    if waited is None or plan.deadline is None or waited >= plan.deadline:
        return outcomes
    if not state.completion_times.priors:
        # Only the first rounds come before any time is known; what little they say of silent clients is left out.
        known = {plan.node_ids[client] for client in (*replies, *failed)}
        return {node: came for node, came in outcomes.items() if node in known}
    unknown = (client for client in range(len(plan.node_ids)) if client not in replies and client not in failed)
    silent = np.array(list(unknown), dtype=np.intp)
    if silent.size == 0:
        return outcomes
    nodes = [plan.node_ids[client] for client in silent]
    work = np.array([plan.code.shards_of(int(client)).size for client in silent], dtype=np.float64)
    times, come = state.completion_times, 1.0 - state.reliability.straggle_prob(nodes)
    unheard = ~times.heard(nodes)
    by_end = times.in_time_prob(nodes, work, waited, given_present=True, strangers=unheard)
    if not isinstance(plan.code, WorkLists):
        # On a work list a client replies in any case; otherwise only if all its work is done by the deadline.
        by_deadline = times.in_time_prob(nodes, work, plan.deadline, given_present=True, strangers=unheard)
        by_end = by_end / np.maximum(by_deadline, 1e-9)
    early = come * np.minimum(by_end, 1.0)
    would = np.clip((come - early) / np.maximum(1.0 - early, 1e-12), 0.0, 1.0)
    return outcomes | dict(zip(nodes, would.tolist(), strict=True))


def is_surprising(plan: RoundPlan, n_arrived: int, waited: float | None) -> bool:
    """Return whether far more or far fewer clients came than had been expected by the deadline.

    Parameters
    ----------
    plan : RoundPlan
        What was expected.
    n_arrived : int
        Number of clients of which anything came.
    waited : float or None
        Seconds after which the round ended: few are no surprise before the deadline.

    Notes
    -----
    That is half as many again or half as many, and three standard deviations of the number of independent arrivals.
    Chance alone does it in a few rounds of a thousand at most, but for sites that hold most of the clients, whose
    outages each are a surprise. All that it costs is another thought.
    """
    come = 1.0 - plan.silence_prob
    expected = float(come.sum())
    off = n_arrived - expected
    if off < 0.0 and waited is not None and plan.deadline is not None and waited < plan.deadline:
        return False
    return bool(abs(off) > max(_SURPRISING * float(np.sqrt(come @ (1.0 - come))), _SURPRISING_PART * expected))


def times_seen(
    plan: RoundPlan, replies: Mapping[int, CodedUpdate], silent: Mapping[int, float]
) -> list[TimeObservation]:
    """Return what replies, and silence for so many seconds, have shown of the clients' completion times."""
    partial = isinstance(plan.code, WorkLists)
    seen = []
    for client, node in enumerate(plan.node_ids):
        reply, waited = replies.get(client), silent.get(client, 0.0)
        if reply is not None and reply.seconds is not None and reply.seconds > 0.0:
            seen.append(_time_of(node, reply, complete=not partial))
        elif reply is None and waited > 0.0:
            # On a work list a client replies at the deadline, however little it has done, or before it once all is
            # done: silence until the deadline says that not even the first shard was, until an early end only that
            # not all were.
            whole = not partial or (plan.deadline is not None and waited < plan.deadline)
            work = plan.code.shards_of(client).size if whole else 1
            seen.append(TimeObservation(node, work, waited, censored=True))
    return seen


def overheads_seen(plan: RoundPlan, replies: Mapping[int, CodedUpdate]) -> dict[int, float]:
    """Return how much of the time to its reply each client was not busy, by node id."""
    return {
        plan.node_ids[client]: max(0.0, reply.seconds - reply.busy_seconds)
        for client, reply in replies.items()
        if reply.seconds is not None and reply.busy_seconds is not None
    }


def _time_of(node: int, reply: CodedUpdate, *, complete: bool) -> TimeObservation:
    done, seconds = reply.shards.size, float(reply.seconds or 0.0)
    if done == 0:
        return TimeObservation(node, 1, seconds, censored=True, complete=complete, there=True)
    if reply.work_seconds is None or reply.busy_seconds is None or not 0.0 < reply.work_seconds <= reply.busy_seconds:
        return TimeObservation(node, done, seconds, complete=complete)
    # What the client was not busy is transfer and waking up; a clock that runs fast must not make that negative.
    fixed = max(0.0, seconds - reply.busy_seconds)
    return TimeObservation(node, done, fixed + reply.work_seconds, fixed_seconds=fixed, complete=complete)
