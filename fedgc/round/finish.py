"""Finish a round: decode what came, and learn from who sent it and when."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fedgc.decoders import Decoding
from fedgc.decoders.optimal_quantised import errors_with_rounding
from fedgc.memory import UpdateMemory, units_of
from fedgc.round.bit_budget import energies_before_rounding, own_rounding_error, told_by_bits
from fedgc.round.evidence import is_surprising, outcomes_seen, overheads_seen, times_seen
from fedgc.round.fold import LEAST_SIZE, RoundFold
from fedgc.round.learn_outages import apart_from_outages
from fedgc.round.outlook import share_of_changes
from fedgc.round.rounding import RoundingByBits
from fedgc.round.sizes import known_or_mean
from fedgc.round.state import CodedUpdate, LateReplies, RoundOutcome, RoundPlan, RoundState
from fedgc.updates import Arrays, Update, add_scaled, scale_in_place

#: A deadline by which nothing came is half forgotten in 34 rounds: clients may have become faster, or come back.
_FADING = 0.98


def finish_round(
    state: RoundState,
    plan: RoundPlan,
    replies: Mapping[int, CodedUpdate] | RoundFold,
    *,
    arrays: Arrays,
    learn: bool = True,
    waited: float | None = None,
    pending: Collection[int] = (),
    failed: Collection[int] = (),
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
    failed : collection of int
        Clients that have told, or shown, that they will not come: as good as silent until the deadline, although the
        round may have ended before it.
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
    square: Update | None = None
    # A round in which nothing arrives is passed over with a memory too: to take its word for everything, perhaps for
    # many rounds on end, would follow directions that are long out of date. What memory would have added is missing
    # then: over all rounds the decoded update falls short by the probability of such a round times what is remembered.
    nothing_came = not any(reply.shard_examples.any() for reply in fold.replies.values())
    if not nothing_came:
        update = fold.decoded()
    # Of shards in a row an update is what the arrays have moved by, which is as much more as there are more examples.
    total = float(sizes.size if plan.in_a_row else sizes.sum())
    if update is not None:
        if memory is not None:
            add_scaled(update, 1.0, memory.rest(decoding.coverage, arrays))
        scale_in_place(update, 1.0 / total)
        square = fold.square(update, 1.0 / total)
    factors = [factor for reply in fold.replies.values() for factor in reply.variance_factors]
    predicted, model_error = _errors(plan, fold, decoding, factors)
    energies, sum_energy, by_bits = _before_rounding(state, plan, fold)
    noise = state.noise
    if noise is not None and update is not None:
        error = model_error if predicted is None else predicted
        noise = noise.update(fold.probe(update), error * share_of_changes(state, plan.code), step=plan.step)

    silent: dict[int, float] = {}
    if waited is not None:
        expected = {*fold.replies, *pending}
        silent = {client: waited for client in range(len(plan.node_ids)) if client not in expected}
        silent |= dict.fromkeys(failed, waited if plan.deadline is None else max(waited, plan.deadline))
    seen = times_seen(plan, fold.replies, silent) if learn else []
    if late is not None:
        seen = times_seen(late.plan, late.replies, late.silent) + seen
    overheads = state.overheads if late is None else state.overheads.update(overheads_seen(late.plan, late.replies))
    if learn:
        overheads = overheads.update(overheads_seen(plan, fold.replies))
    reliability, outages = state.reliability, state.outages
    # Before anybody has come, deadlines by which nobody does are too short, and will be other ones: as misses, a few
    # such rounds would outweigh for long what the first long enough one shows.
    if learn and (fold.replies or not _nothing_yet(state)):
        outcomes = outcomes_seen(state, plan, fold.replies, waited, failed)
        own, outages = apart_from_outages(state, plan, outcomes, fold.replies.keys())
        reliability = reliability.update(own)
    n_arrived = sum(bool(rows) for rows in fold.rows.values())
    new_state = RoundState(
        shard_examples=shard_examples,
        reliability=reliability,
        coherence=state.coherence.update_from_rows(fold.energies, fold.sum_energy, fold.averaged)
        if plan.in_a_row
        else state.coherence.update(energies, sum_energy),
        plan=plan,
        completion_times=state.completion_times,
        overheads=overheads,
        new_times=(*state.new_times, *seen),
        rounds=state.rounds + 1,
        memory=None if memory is None else _remember(memory, plan, fold.kept, sizes, late),
        claims=state.claims,
        noise=noise,
        fruitless=_fruitless(state, plan, nothing_came=nothing_came) if learn else state.fruitless,
        surprised=nothing_came or (learn and noise is not None and _is_surprised(state, plan, n_arrived, waited)),
        outages=outages,
        rounding=None if state.rounding is None else state.rounding.update(factors),
        rounding_by_bits=by_bits,
    )
    if new_state.reconsiders:
        fitted = new_state.completion_times.update(new_state.new_times)
        new_state = replace(new_state, completion_times=fitted, new_times=())
    weight = 0.0 if update is None else fold.total_weight(sizes, decoding.coverage)
    outcome = RoundOutcome(update, decoding, predicted, model_error, n_arrived, shard_examples, square, weight)
    return new_state, outcome


def _nothing_yet(state: RoundState) -> bool:
    """Return whether the deadline follows from what is learnt, and there has been nothing to learn from."""
    return state.noise is not None and state.noise.last is None


def _is_surprised(state: RoundState, plan: RoundPlan, n_arrived: int, waited: float | None) -> bool:
    # What the first to come have shown of overheads would not go with times that nobody has shown.
    return _nothing_yet(state) or is_surprising(plan, n_arrived, waited)


def _errors(
    plan: RoundPlan, fold: RoundFold, decoding: Decoding, factors: Sequence[float]
) -> tuple[float | None, float]:
    """Return the residual error that was predicted, and that of what came, with what rounding adds to them."""
    predicted = plan.decoder.residual_error
    observed = plan.gram.residual_error(fold.coverage(decoding.coverage))
    if plan.bits is not None:
        return predicted, observed + own_rounding_error(plan, decoding.decoding_weights, fold.replies)
    return errors_with_rounding(
        plan.decoder.code,
        plan.gram,
        factors,
        decoding.coverage,
        predicted=predicted,
        observed=observed,
        told=plan.variance_factor,
    )


def _before_rounding(
    state: RoundState, plan: RoundPlan, fold: RoundFold
) -> tuple[list[float], float, RoundingByBits | None]:
    """Return what has been seen of energies, without the rounding where it differs, and what is known of that now."""
    if plan.bits is None:
        return fold.energies, fold.sum_energy, state.rounding_by_bits
    assert state.rounding_by_bits is not None  # the bits were divided by it
    by_bits = state.rounding_by_bits.update(told_by_bits(plan, fold.replies))
    return *energies_before_rounding(plan, fold.observed, fold.energies, fold.sum_energy, by_bits), by_bits


def _fruitless(state: RoundState, plan: RoundPlan, *, nothing_came: bool) -> float:
    return max(state.fruitless, plan.deadline) if nothing_came and plan.deadline else _FADING * state.fruitless


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
