"""Learn from a round: who came and when, how alike updates were, how much noise training bears."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fedgc.completion_times import TimeObservation
from fedgc.memory import UpdateMemory, units_of
from fedgc.noise import NoiseSensitivity
from fedgc.round.after.evidence import is_surprising, outcomes_seen, overheads_seen, times_seen
from fedgc.round.after.learn_outages import apart_from_outages
from fedgc.round.after.own_rounding import energies_before_rounding, told_by_bits
from fedgc.round.during.fold import LEAST_SIZE, RoundFold
from fedgc.round.rounding import RoundingByBits
from fedgc.round.sizes import known_or_mean
from fedgc.round.state import LateReplies, RoundOutcome, RoundPlan, RoundState
from fedgc.updates import Arrays

#: A deadline by which nothing came is half forgotten in 34 rounds: clients may have become faster, or come back.
_FADING = 0.98


def learn_from_round(
    state: RoundState,
    plan: RoundPlan,
    fold: RoundFold,
    outcome: RoundOutcome,
    *,
    learn: bool,
    waited: float | None,
    pending: Collection[int],
    failed: Collection[int],
    late: LateReplies | None,
) -> RoundState:
    """Return the state for the next round.

    Parameters
    ----------
    fold : RoundFold
        What has come, decoded.
    outcome : RoundOutcome
        What it was decoded to.
    state, plan, learn, waited, pending, failed, late
        See :func:`fedgc.round.finish_round`.
    """
    seen = _times(plan, fold, waited, pending, failed) if learn else []
    overheads = state.overheads
    if late is not None:
        seen = times_seen(late.plan, late.replies, late.silent) + seen
        overheads = overheads.update(overheads_seen(late.plan, late.replies))
    if learn:
        overheads = overheads.update(overheads_seen(plan, fold.replies))
    reliability, outages = state.reliability, state.outages
    # Before anybody has come, deadlines by which nobody does are too short, and will be other ones: as misses, a few
    # such rounds would outweigh for long what the first long enough one shows.
    if learn and (fold.replies or not _nothing_yet(state)):
        outcomes = outcomes_seen(state, plan, fold.replies, waited, failed)
        own, outages = apart_from_outages(state, plan, outcomes, fold.replies.keys())
        reliability = reliability.update(own)
    energies, sum_energy, by_bits = _before_rounding(state, plan, fold)
    learnt = replace(
        state,
        shard_examples=outcome.shard_examples,
        reliability=reliability,
        coherence=state.coherence.update_from_rows(fold.energies, fold.sum_energy, fold.averaged)
        if plan.in_a_row
        else state.coherence.update(energies, sum_energy),
        plan=replace(plan, mean_progress=outcome.step) if plan.is_guess and not fold.nothing_came else plan,
        overheads=overheads,
        new_times=(*state.new_times, *seen),
        rounds=state.rounds + 1,
        memory=None if fold.memory is None else _remember(fold.memory, plan, fold.kept, outcome.shard_examples, late),
        noise=_noise(state, plan, fold, outcome),
        fruitless=_fruitless(state, plan, fold) if learn else state.fruitless,
        surprised=fold.nothing_came or (learn and _is_surprised(state, plan, outcome.n_arrived, waited)),
        outages=outages,
        rounding=None if state.rounding is None else state.rounding.update(fold.variance_factors),
        rounding_by_bits=by_bits,
    )
    if not learnt.reconsiders:
        return learnt
    return replace(learnt, completion_times=learnt.completion_times.update(learnt.new_times), new_times=())


def _times(
    plan: RoundPlan, fold: RoundFold, waited: float | None, pending: Collection[int], failed: Collection[int]
) -> list[TimeObservation]:
    silent: dict[int, float] = {}
    if waited is not None:
        expected = {*fold.replies, *pending}
        silent = {client: waited for client in range(len(plan.node_ids)) if client not in expected}
        # Who has failed would have been silent until the deadline, whenever the round ended.
        silent |= dict.fromkeys(failed, waited if plan.deadline is None else max(waited, plan.deadline))
    return times_seen(plan, fold.replies, silent)


def _noise(state: RoundState, plan: RoundPlan, fold: RoundFold, outcome: RoundOutcome) -> NoiseSensitivity | None:
    if state.noise is None or outcome.update is None:
        return state.noise
    if plan.is_guess:
        return state.noise.update(fold.probe(outcome.update), np.inf, step=outcome.step)
    predicted = outcome.predicted_residual_error
    error = outcome.model_residual_error if predicted is None else predicted
    return state.noise.update(fold.probe(outcome.update), error * state.share_of_changes(plan.code), step=outcome.step)


def _nothing_yet(state: RoundState) -> bool:
    """Return whether the deadline follows from what is learnt, and there has been nothing to learn from."""
    return state.noise is not None and state.noise.last is None


def _is_surprised(state: RoundState, plan: RoundPlan, n_arrived: int, waited: float | None) -> bool:
    if state.noise is None:
        return False
    # What the first to come have shown of overheads would not go with times that nobody has shown.
    return _nothing_yet(state) or is_surprising(plan, n_arrived, waited)


def _before_rounding(
    state: RoundState, plan: RoundPlan, fold: RoundFold
) -> tuple[list[float], float, RoundingByBits | None]:
    """Return what has been seen of energies, without the rounding where it differs, and what is known of that now."""
    if plan.bits is None:
        return fold.energies, fold.sum_energy, state.rounding_by_bits
    assert state.rounding_by_bits is not None  # the bits were divided by it
    by_bits = state.rounding_by_bits.update(told_by_bits(plan, fold.replies))
    return *energies_before_rounding(plan, fold.observed, fold.energies, fold.sum_energy, by_bits), by_bits


def _fruitless(state: RoundState, plan: RoundPlan, fold: RoundFold) -> float:
    return max(state.fruitless, plan.deadline) if fold.nothing_came and plan.deadline else _FADING * state.fruitless


def _remember(
    memory: UpdateMemory,
    plan: RoundPlan,
    sums: Mapping[int, Arrays],
    shard_examples: NDArray[np.float64],
    late: LateReplies | None,
) -> UpdateMemory:
    """Return the memory after a round, with what came late from the round before.

    What came late enters after the decoding: who is late is busy, and what is remembered must not depend on who arrives
    while it is decoded with. Of units that came in this round too the newer value stays.
    """
    units, sizes = memory.unit_of_shard, np.maximum(known_or_mean(shard_examples), LEAST_SIZE)
    if late is not None:
        code = late.plan.decoder.code
        old = {row: total for client in sorted(late.replies) for row, total in late.replies[client].sums.items()}
        memory = memory.for_units(units_of(code), sizes)
        memory = memory.refresh(code.sparse_matrix[list(old)], list(old.values()), late.plan.gram.incoherent)
        memory = memory.for_units(units, sizes)
    return memory.refresh(plan.decoder.code.sparse_matrix[list(sums)], list(sums.values()), plan.gram.incoherent)
