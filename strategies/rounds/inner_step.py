"""The inner strategy's step with the decoded aggregate."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg, Strategy


def inner_step(
    strategy: Strategy,
    server_round: int,
    arrays: ArrayRecord,
    clients: Sequence[RecordDict],
    as_reply: Callable[[], Message],
) -> tuple[ArrayRecord | None, MetricRecord | None]:
    """Return what the inner strategy makes of the decoded aggregate, which it gets as its only reply.

    Parameters
    ----------
    strategy : Strategy
        The inner strategy.
    server_round : int
        The round's number.
    arrays : ArrayRecord
        The aggregate.
    clients : sequence of RecordDict
        The metrics of each client that counts: these its ``train_metrics_aggr_fn`` gets, as from Flower.
    as_reply : callable
        Makes the aggregate a reply, with metrics that stand for those of all clients.

    Notes
    -----
    FedAvg, and what inherits its averaging, makes of one model the same model, by way of four copies. It is spared
    that; its metrics are aggregated as ever.
    """
    averages = getattr(strategy.aggregate_train, "__func__", None) is FedAvg.aggregate_train
    if not isinstance(strategy, FedAvg) or not averages:
        with _metrics_of(clients, innermost(strategy)):
            return strategy.aggregate_train(server_round, [as_reply()])
    return arrays, strategy.train_metrics_aggr_fn(list(clients), strategy.weighted_by_key)


def chain(strategy: Strategy) -> Iterator[Strategy]:
    """Yield a strategy, the one that it is around, if it is around one, and so on."""
    yield strategy
    while isinstance(within := getattr(strategy, "strategy", None), Strategy):
        strategy = within
        yield strategy


def innermost(strategy: Strategy) -> Strategy:
    """Return the strategy that others are around, if any are."""
    *_, last = chain(strategy)
    return last


@contextmanager
def _metrics_of(clients: Sequence[RecordDict], strategy: Strategy) -> Iterator[None]:
    """Let a strategy aggregate the metrics of the clients, while it takes one reply for all of them."""
    name = "train_metrics_aggr_fn"
    aggregate = vars(strategy).get(name)
    if not callable(aggregate):
        yield
        return
    setattr(strategy, name, lambda replies, weighted_by: aggregate(list(clients), weighted_by))
    try:
        yield
    finally:
        setattr(strategy, name, aggregate)
