"""Evaluation replies that the inner strategy can average: one that it cannot would end the run."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable

from fedgc.strategies.messages.replies import check_metrics
from fedgc.strategies.messages.reply_limits import brief, check_small, drop_all, one_line
from flwr.app import ArrayRecord, Error, Message, MetricRecord
from flwr.app.message import make_message
from flwr.serverapp.strategy import Strategy

from fedgc.errors import ReplyRejectedError

logger = logging.getLogger("flwr.fedgc")

#: What a reply consists of: names of records, and of the metrics, with the lengths of lists.
Form = tuple[tuple[str, tuple[tuple[str, int], ...]], ...]


def usable_evaluations(server_round: int, replies: Iterable[Message], strategy: Strategy) -> list[Message]:
    """Return the evaluation replies without those that cannot be averaged with the others; the log names their nodes.

    Parameters
    ----------
    server_round : int
        The round's number.
    replies : iterable of Message
        What has come.
    strategy : Strategy
        The inner strategy, which averages them.

    Notes
    -----
    Flower's strategies raise an error, and the run ends, if a reply lacks the metric by which they weigh, or has other
    metrics than the rest. Of replies that differ the more frequent form is kept, or of equally frequent ones that of
    the first. A strategy that averages in a way of its own gets all that comes. What a metric says cannot be checked:
    a client that lies about its accuracy, or how many examples it has, is in the mean.
    """
    weighted_by = getattr(strategy, "weighted_by_key", None)
    if weighted_by is None or not type(strategy).aggregate_evaluate.__module__.startswith("flwr."):
        return list(replies)
    failed: list[Message] = []
    sound: list[tuple[Message, Form, float]] = []
    for reply in replies:
        if reply.has_error():
            # The strategy writes the reason into the log, whatever it is.
            short = Error(reply.error.code, one_line(reply.error.reason))
            failed.append(make_message(reply.metadata, error=short))
            continue
        try:
            sound.append((reply, *_read(reply, weighted_by)))
        except ReplyRejectedError as reason:
            _leave_out(server_round, reply, str(reason))
    usual = Counter(form for _, form, _ in sound).most_common(1)
    kept = [(reply, weight) for reply, form, weight in sound if form == usual[0][0]]
    for reply, form, _ in sound:
        if form != usual[0][0]:
            _leave_out(server_round, reply, "it has other records or metrics than most")
    if kept and not sum(weight for _, weight in kept) > 0.0:
        logger.warning(
            "round %d: the evaluation has no result: %s is 0 in all %d replies", server_round, weighted_by, len(kept)
        )
        kept = []
    return [*(reply for reply, _ in kept), *failed]


def _read(reply: Message, weighted_by: str) -> tuple[Form, float]:
    """Return a reply's form and weight."""
    form, weights = [], []
    for name, record in reply.content.items():
        lengths: dict[str, int] = {}
        if not isinstance(record, ArrayRecord):
            check_small(name, record)
        if isinstance(record, MetricRecord):
            check_metrics(record)
            lengths = {key: len(value) if isinstance(value, list) else -1 for key, value in record.items()}
            weights.append(record.get(weighted_by))
        form.append((name, tuple(sorted(lengths.items()))))
    if len(weights) != 1:
        raise ReplyRejectedError(f"it must hold one MetricRecord; got {len(weights)}")
    weight = weights[0]
    if not isinstance(weight, (int, float)) or weight < 0:
        raise ReplyRejectedError(f"{weighted_by} must be a number of at least 0; got {brief(weight)}")
    return tuple(sorted(form)), float(weight)


def _leave_out(server_round: int, reply: Message, reason: str) -> None:
    node_id = reply.metadata.src_node_id
    logger.warning("round %d: node %d is left out of the evaluation: %s", server_round, node_id, one_line(reason))
    drop_all(reply)
