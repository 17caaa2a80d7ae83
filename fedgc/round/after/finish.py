"""Finish a round: decode what came, and learn from who sent it and when."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from fedgc.round.after.decode import decode_round
from fedgc.round.after.learn import learn_from_round
from fedgc.round.during.fold import RoundFold
from fedgc.round.state import CodedUpdate, LateReplies, RoundOutcome, RoundPlan, RoundState
from fedgc.updates import Arrays


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
    outcome = decode_round(state, plan, fold, arrays)
    after = learn_from_round(
        state, plan, fold, outcome, learn=learn, waited=waited, pending=pending, failed=failed, late=late
    )
    return after, outcome
