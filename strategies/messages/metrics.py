"""The clients' training metrics, as the one that stands for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from flwr.app import MetricRecord, RecordDict
from flwr.serverapp.strategy.strategy_utils import aggregate_metricrecords

from fedgc.protocol import NUM_EXAMPLES


def mean_metrics(records: Sequence[MetricRecord], weighted_by: str) -> MetricRecord:
    """Return the metrics averaged by number of examples; only those that every reply has, as a plain number.

    Parameters
    ----------
    records : sequence of MetricRecord
        The replies' metrics; those of replies without examples are passed over, and at least one must have some.
    weighted_by : str
        The metric by which the inner strategy weighs its replies; it gets the number of all examples.
    """
    records = [record for record in records if cast(int, record[NUM_EXAMPLES]) > 0]
    common = set.intersection(*(set(record) for record in records))
    scalars = [k for k in records[0] if k in common and not any(isinstance(record[k], list) for record in records)]
    pruned = [RecordDict({"metrics": MetricRecord({key: record[key] for key in scalars})}) for record in records]
    mean = aggregate_metricrecords(pruned, NUM_EXAMPLES)
    mean[weighted_by] = sum(cast(int, record[NUM_EXAMPLES]) for record in records)
    return mean
