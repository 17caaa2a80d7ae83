"""Finish a round: decode what came, and learn from who sent it and when."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from fedgc.codes import WorkLists
from fedgc.completion_times import TimeObservation
from fedgc.control_variates import UpdateMemory, units_of
from fedgc.round.fold import LEAST_SIZE, RoundFold
from fedgc.round.planning import time_to_reconsider
from fedgc.round.sizes import known_or_mean
from fedgc.round.state import CodedUpdate, LateReplies, RoundOutcome, RoundPlan, RoundState
from fedgc.updates import Arrays, Update, add_scaled, scale_in_place


def finish_round(
    state: RoundState,
    plan: RoundPlan,
    replies: Mapping[int, CodedUpdate] | RoundFold,
    *,
    arrays: Arrays,
    learn: bool = True,
    waited: float | None = None,
    pending: Collection[int] = (),
    late: LateReplies | None = None,
) -> tuple[RoundState, RoundOutcome]:
    """Decode the coded updates that came by the deadline and learn from who sent them.

    Parameters
    ----------
    state : RoundState
        The state that `plan` was made from.
    plan : RoundPlan
        The round's plan.
    replies : RoundFold, or mapping of int to CodedUpdate
        What has come: folded together as it came, or the coded update of each client that arrived, by client index.
        Updates must be finite and shaped like `arrays`.
    arrays : mapping of str to ndarray
        The global arrays; only names, shapes and dtypes are used.
    learn : bool
        Whether this round is evidence on reliability and completion times. A round with another deadline than usual,
        during which a runtime may still be starting up, is not.
    waited : float, optional
        Seconds from sending the messages to the end of the round; less than the deadline if it ended early.
    pending : collection of int
        Silent clients that will be listened to further: what their silence says of their times comes with a later
        round, as `late`.
    late : LateReplies, optional
        What has been heard of the round before since it ended.

    Returns
    -------
    state : RoundState
        For the next round.
    outcome : RoundOutcome
        The decoded update and what is known about its error.
    """
    fold = replies if isinstance(replies, RoundFold) else RoundFold.of(state, plan, replies, arrays)
    shard_examples = state.shard_examples.copy()
    for reply in fold.replies.values():
        shard_examples[reply.shards] = reply.shard_examples
    decoding = plan.decoder.decode(fold.arrived)
    sizes, memory = known_or_mean(shard_examples), fold.memory

    update: Update | None = None
    # A round in which nothing arrives is passed over with a memory too: to take its word for everything, perhaps for
    # many rounds on end, would follow directions that are long out of date. What memory would have added is missing
    # then: over all rounds the decoded update falls short by the probability of such a round times what is remembered.
    if any(reply.shard_examples.any() for reply in fold.replies.values()):
        update = fold.decoded()
    if update is not None:
        if memory is not None:
            add_scaled(update, 1.0, memory.rest(decoding.coverage, arrays))
        scale_in_place(update, 1.0 / float(sizes.sum()))

    silent = (
        {} if waited is None else {c: waited for c in range(len(plan.node_ids)) if c not in {*fold.replies, *pending}}
    )
    seen = _times(plan, fold.replies, silent) if learn else []
    if late is not None:
        seen = _times(late.plan, late.replies, late.silent) + seen
    overheads = state.overheads if late is None else state.overheads.update(_overheads(late.plan, late.replies))
    if learn:
        overheads = overheads.update(_overheads(plan, fold.replies))
    times, new_times = state.completion_times, (*state.new_times, *seen)
    if time_to_reconsider(state.rounds + 1):
        times, new_times = times.update(new_times), ()
    new_state = RoundState(
        shard_examples=shard_examples,
        reliability=state.reliability.update(_outcomes(state, plan, fold.replies, waited))
        if learn
        else state.reliability,
        coherence=state.coherence.update(fold.energies, fold.sum_energy),
        plan=plan,
        completion_times=times,
        overheads=overheads,
        new_times=new_times,
        rounds=state.rounds + 1,
        memory=None if memory is None else _remember(memory, plan, fold.kept, sizes, late),
    )
    model_error = plan.gram.residual_error(decoding.coverage)
    n_arrived = sum(bool(rows) for rows in fold.rows.values())
    return new_state, RoundOutcome(update, decoding, plan.decoder.residual_error, model_error, n_arrived)


def _outcomes(
    state: RoundState, plan: RoundPlan, replies: Mapping[int, CodedUpdate], waited: float | None
) -> dict[int, bool | float]:
    """Return who came, and how likely those would have who were silent when the round ended early.

    Such a client has not been seen to miss: counted as a miss it would look less reliable than it is, left out it would
    look more reliable, since only its successes would count. With a the probability to come by the deadline and a' to
    come by the early end, it would still have come with probability ``(a - a') / (1 - a')``.
    """
    outcomes: dict[int, bool | float] = {node: client in replies for client, node in enumerate(plan.node_ids)}
    if waited is None or plan.deadline is None or waited >= plan.deadline:
        return outcomes
    if not state.completion_times.priors:
        # Only the first rounds come before any time is known; what little they say of silent clients is left out.
        return {node: came for node, came in outcomes.items() if came}
    silent = np.array([client for client in range(len(plan.node_ids)) if client not in replies], dtype=np.intp)
    if silent.size == 0:
        return outcomes
    nodes = [plan.node_ids[client] for client in silent]
    work = np.array([plan.code.shards_of(int(client)).size for client in silent], dtype=np.float64)
    times, come = state.completion_times, 1.0 - plan.straggle_prob[silent]
    by_end = times.in_time_prob(nodes, work, waited, given_present=True)
    if not isinstance(plan.code, WorkLists):
        # On a work list a client replies in any case; otherwise only if all its work is done by the deadline.
        by_end = by_end / np.maximum(times.in_time_prob(nodes, work, plan.deadline, given_present=True), 1e-9)
    early = come * np.minimum(by_end, 1.0)
    would = np.clip((come - early) / np.maximum(1.0 - early, 1e-12), 0.0, 1.0)
    return outcomes | dict(zip(nodes, would.tolist(), strict=True))


def _times(plan: RoundPlan, replies: Mapping[int, CodedUpdate], silent: Mapping[int, float]) -> list[TimeObservation]:
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


def _overheads(plan: RoundPlan, replies: Mapping[int, CodedUpdate]) -> dict[int, float]:
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


def _remember(
    memory: UpdateMemory,
    plan: RoundPlan,
    sums: Mapping[int, Arrays],
    sizes: NDArray[np.float64],
    late: LateReplies | None,
) -> UpdateMemory:
    """Return the memory after a round, with what came late from the round before.

    What came late enters after the decoding: who is late is busy, and what is remembered must not depend on who arrives
    while it is decoded with. Of units that came in this round too the newer value stays.
    """
    units = memory.unit_of_shard
    if late is not None:
        code = late.plan.decoder.code
        old = {row: total for client in sorted(late.replies) for row, total in late.replies[client].sums.items()}
        memory = memory.for_units(units_of(code), np.maximum(sizes, LEAST_SIZE))
        memory = memory.refresh(code.sparse_matrix[list(old)], list(old.values()), late.plan.gram.incoherent)
        memory = memory.for_units(units, np.maximum(sizes, LEAST_SIZE))
    return memory.refresh(plan.decoder.code.sparse_matrix[list(sums)], list(sums.values()), plan.gram.incoherent)
