"""Decode a round: what came of it, as an estimate of the mean update, and how far off that is."""

from __future__ import annotations

from fedgc.decoders import Decoding
from fedgc.decoders.optimal_quantised import errors_with_rounding
from fedgc.round.after.own_rounding import own_rounding_error
from fedgc.round.during.fold import RoundFold
from fedgc.round.sizes import known_or_mean
from fedgc.round.state import RoundOutcome, RoundPlan, RoundState
from fedgc.updates import Arrays, Update, add_scaled, scale_in_place


def decode_round(state: RoundState, plan: RoundPlan, fold: RoundFold, arrays: Arrays) -> RoundOutcome:
    """Return the decoded update and what is known about its error.

    Parameters
    ----------
    state, plan, arrays
        See :func:`fedgc.round.finish_round`.
    fold : RoundFold
        What has come; what it has decoded can be had once.
    """
    shard_examples = state.shard_examples.copy()
    for reply in fold.replies.values():
        shard_examples[reply.shards] = reply.shard_examples
    sizes = known_or_mean(shard_examples)
    decoding = plan.decoder.decode(fold.arrived)
    update: Update | None = None
    square: Update | None = None
    # A round in which nothing arrives is passed over with a memory too: to take its word for everything, perhaps for
    # many rounds on end, would follow directions that are long out of date. What memory would have added is missing
    # then: over all rounds the decoded update falls short by the probability of such a round times what is remembered.
    if not fold.nothing_came:
        update = fold.decoded()
    # Of shards in a row an update is what the arrays have moved by, which is as much more as there are more examples.
    total = float(sizes.size if plan.in_a_row else sizes.sum())
    if update is not None:
        if fold.memory is not None:
            add_scaled(update, 1.0, fold.memory.rest(decoding.coverage, arrays))
        scale_in_place(update, 1.0 / total)
        square = fold.square(update, 1.0 / total)
    predicted, model_error = _errors(plan, fold, decoding)
    n_arrived = sum(bool(rows) for rows in fold.rows.values())
    weight = 0.0 if update is None else fold.total_weight(sizes, decoding.coverage)
    return RoundOutcome(update, decoding, predicted, model_error, n_arrived, shard_examples, square, weight, fold.step)


def _errors(plan: RoundPlan, fold: RoundFold, decoding: Decoding) -> tuple[float | None, float]:
    """Return the residual error that was predicted, and that of what came, with what rounding adds to them."""
    predicted = plan.decoder.residual_error
    observed = plan.gram.residual_error(fold.coverage(decoding.coverage))
    if plan.bits is not None:
        return predicted, observed + own_rounding_error(plan, decoding.decoding_weights, fold.replies)
    return errors_with_rounding(
        plan.decoder.code,
        plan.gram,
        fold.variance_factors,
        decoding.coverage,
        predicted=predicted,
        observed=observed,
        told=plan.variance_factor,
    )
