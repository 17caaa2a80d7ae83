"""The clients' training metrics: those that all of them have, and the one record that stands for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from flwr.app import MetricRecord, RecordDict
from flwr.serverapp.strategy.strategy_utils import aggregate_metricrecords

from fedgc.protocol import NUM_EXAMPLES
from fedgc.records.copies import checked


def comparable_metrics(records: Sequence[MetricRecord]) -> list[RecordDict]:
    """Return the metrics of each client that counts, as far as every one of these has them as a plain number.

    Parameters
    ----------
    records : sequence of MetricRecord
        The replies' metrics; those of replies without examples are passed over, and at least one must have some.

    Examples
    --------
    >>> told = [{"num-examples": 2, "loss": 0.5, "lr": 0.1}, {"num-examples": 1, "loss": 0.2}, {"num-examples": 0}]
    >>> [dict(one["metrics"]) for one in comparable_metrics([MetricRecord(said) for said in told])]
    [{'num-examples': 2, 'loss': 0.5}, {'num-examples': 1, 'loss': 0.2}]
    """
    records = [record for record in records if cast(int, record[NUM_EXAMPLES]) > 0]
    common = set.intersection(*(set(record) for record in records))
    scalars = [k for k in records[0] if k in common and not any(isinstance(record[k], list) for record in records)]
    return [
        checked(RecordDict, {"metrics": checked(MetricRecord, {key: record[key] for key in scalars})})
        for record in records
    ]


def mean_metrics(clients: Sequence[RecordDict]) -> MetricRecord:
    """Return what :func:`comparable_metrics` returned, averaged by number of examples, with the number of them all."""
    mean = aggregate_metricrecords(list(clients), NUM_EXAMPLES)
    mean[NUM_EXAMPLES] = sum(cast(int, client["metrics"][NUM_EXAMPLES]) for client in clients)
    return mean
