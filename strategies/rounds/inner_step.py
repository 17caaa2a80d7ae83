"""The inner strategy's step with the decoded aggregate."""

from __future__ import annotations

from flwr.app import ArrayRecord, Message, MetricRecord
from flwr.serverapp.strategy import FedAvg, Strategy


def inner_step(
    strategy: Strategy, server_round: int, decoded: Message
) -> tuple[ArrayRecord | None, MetricRecord | None]:
    """Return what the inner strategy makes of the decoded aggregate, which it gets as its only reply.

    Notes
    -----
    FedAvg, and what inherits its averaging, makes of one model the same model, by way of four copies. It is spared
    that; its metrics are aggregated as ever.
    """
    averages = getattr(strategy.aggregate_train, "__func__", None) is FedAvg.aggregate_train
    if not isinstance(strategy, FedAvg) or not averages:
        return strategy.aggregate_train(server_round, [decoded])
    (arrays,) = decoded.content.array_records.values()
    return arrays, strategy.train_metrics_aggr_fn([decoded.content], strategy.weighted_by_key)
