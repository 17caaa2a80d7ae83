"""Flower's records as plain data, and back to the last bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fedgc.checkpoint.tree import Tree

Record = ArrayRecord | MetricRecord | ConfigRecord


def arrays_to_tree(arrays: ArrayRecord) -> Tree:
    """Return an ArrayRecord as plain data: the bytes of its arrays are kept as they are, whatever their type.

    Examples
    --------
    >>> import numpy as np
    >>> record = ArrayRecord({"w": Array(np.ones(2, dtype=np.float16))})
    >>> arrays_from_tree(arrays_to_tree(record)) == record
    True
    """
    return [(name, array.dtype, list(array.shape), array.stype, array.data) for name, array in arrays.items()]


def arrays_from_tree(tree: Tree) -> ArrayRecord:
    """Return the ArrayRecord that :func:`arrays_to_tree` wrote."""
    return ArrayRecord(
        {
            name: Array(dtype=dtype, shape=tuple(shape), stype=stype, data=data)
            for name, dtype, shape, stype, data in tree
        }
    )


def records_to_tree(records: RecordDict) -> Tree:
    """Return a RecordDict as plain data.

    Examples
    --------
    >>> records = RecordDict({"config": ConfigRecord({"lr": 0.1, "ids": [1, 2]}), "metrics": MetricRecord({"n": 3})})
    >>> records_from_tree(records_to_tree(records)) == records
    True
    """
    return [(name, *_record_to_tree(record)) for name, record in records.items()]


def records_from_tree(tree: Tree) -> RecordDict:
    """Return the RecordDict that :func:`records_to_tree` wrote."""
    return RecordDict({name: _KINDS[kind](data) for name, kind, data in tree})


def _record_to_tree(record: Record) -> tuple[str, Tree]:
    if isinstance(record, ArrayRecord):
        return "arrays", arrays_to_tree(record)
    return "metrics" if isinstance(record, MetricRecord) else "config", dict(cast(Any, record))


_KINDS: dict[str, Callable[[Any], Record]] = {
    "arrays": arrays_from_tree,
    "metrics": MetricRecord,
    "config": ConfigRecord,
}
