"""The end of a round: decode it, learn from it, and let the inner strategy take its step."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

from fedgc.strategies.messages.arrays import in_the_types_of, moved_record
from fedgc.strategies.messages.metrics import comparable_metrics, mean_metrics
from fedgc.strategies.reporting.report import RoundReport
from fedgc.strategies.rounds.inner_step import inner_step
from fedgc.strategies.rounds.open_round import OpenRound
from fedgc.strategies.rounds.size_disagreements import SizeDisagreement, size_lines
from fedgc.strategies.variance_aware import SECOND_MOMENT
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import Strategy

from fedgc.records.array_bytes import record_array
from fedgc.round import LateReplies, RoundOutcome, RoundState, finish_round
from fedgc.updates import average_statistics, scale_in_place

logger = logging.getLogger("flwr.fedgc")


def close_round(
    server_round: int,
    state: RoundState,
    current: OpenRound,
    *,
    waited: float | None,
    late: LateReplies | None,
    pending: Collection[int],
    dissenting: Collection[int] = (),
    size_disagreements: Sequence[SizeDisagreement] = (),
) -> tuple[RoundState, RoundOutcome, RoundReport]:
    """Return what is known after a round, what it decodes to, and what is reported of it.

    Parameters
    ----------
    server_round : int
        The round's number.
    state : RoundState
        What was known before it.
    current : OpenRound
        The round, with all its replies taken in.
    waited : float or None
        Seconds that it lasted, if known.
    late : LateReplies or None
        What has come for the round before.
    pending : collection of int
        Silent clients that are listened to from now on.
    dissenting : collection of int
        Nodes found to have sent another sum than most who hold the same shards.
    size_disagreements : sequence of SizeDisagreement
        Who has said different sizes of a shard, and has not been told of before.
    """
    new_state, outcome = finish_round(
        state,
        current.plan,
        current.fold,
        arrays=current.values,
        # Who makes another deadline than the usual says nothing about who makes the usual one.
        learn=current.deadline == current.plan.deadline,
        waited=waited,
        pending=pending,
        failed=current.failed - current.fold.replies.keys(),
        late=late,
    )
    new_state = current.sizes.learnt(new_state)
    report = RoundReport.of(server_round, current, waited, outcome, late, dissenting=dissenting)
    for node_id, reason in report.rejected.items():
        logger.warning("round %d: node %d is left out: %s", server_round, node_id, reason)
    for one, other, apart in report.disagreements:
        logger.warning(
            "round %d: nodes %d and %d should have sent the same sum and are %.3g of it apart: "
            'does the randomness of the train function come from config["shard-seed"]?',
            server_round, one, other, apart,
        )  # fmt: skip
    for line in size_lines(size_disagreements):
        logger.warning(
            "round %d: %s (one size counts for all; does every holder have the same data, split by the same seed?)",
            server_round, line,
        )  # fmt: skip
    for node_id in report.dissenting:
        logger.warning(
            "round %d: node %d has sent another sum than most of those who hold the same shards", server_round, node_id
        )
    return new_state, outcome, report


def next_arrays(
    strategy: Strategy,
    server_round: int,
    current: OpenRound,
    outcome: RoundOutcome,
    state: RoundState,
    *,
    arrayrecord_key: str,
) -> tuple[ArrayRecord | None, MetricRecord | None]:
    """Return the inner strategy's step with the decoded aggregate; without one, None and the reason in the log.

    Parameters
    ----------
    strategy : Strategy
        The inner strategy, which gets the aggregate as if one client had sent it.
    server_round : int
        The round's number.
    current : OpenRound
        The round.
    outcome : RoundOutcome
        What it decodes to. The update is used up.
    state : RoundState
        What is known after it.
    arrayrecord_key : str
        Name of the record of the arrays.
    """
    update = outcome.update
    if update is None:
        logger.warning("round %d: %s, the model stays as it is", server_round, current.why_no_update)
        return None, None
    if current.plan.in_a_row:
        scale_in_place(update, outcome.step)
    if state.memory is None:
        update = average_statistics(update, outcome.total_weight * outcome.step)
    moved = moved_record(current.values, update)
    if moved is None:
        logger.warning("round %d: the aggregate is not finite, the model stays as it is", server_round)
        return None, None
    clients = comparable_metrics(list(current.metrics.values()))

    def as_reply() -> Message:
        content = RecordDict({arrayrecord_key: moved, "metrics": mean_metrics(clients)})
        if outcome.second_moment is not None:
            squares = {name: record_array(value) for name, value in outcome.second_moment.items()}
            content[SECOND_MOMENT] = ArrayRecord(squares)
        return Message(content, reply_to=current.messages[0])

    new, metrics = inner_step(strategy, server_round, moved, clients, as_reply)
    return None if new is None else in_the_types_of(current.values, new), metrics
