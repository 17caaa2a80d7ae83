"""Flower's records and messages as plain data, and back to the last bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, Metadata, MetricRecord, RecordDict

from fedgc.checkpoint.tree import Tree
from fedgc.records.copies import new_message

Record = ArrayRecord | MetricRecord | ConfigRecord

_METADATA = (
    "run_id",
    "message_id",
    "src_node_id",
    "dst_node_id",
    "reply_to_message_id",
    "group_id",
    "created_at",
    "ttl",
    "message_type",
    "src_task_id",
    "dst_task_id",
)


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


def message_to_tree(message: Message, *, content: bool = True) -> Tree:
    """Return a message as plain data, with its content or without."""
    tree = {"metadata": metadata_to_tree(message.metadata)}
    if message.has_error():
        return {**tree, "error": (message.error.code, message.error.reason)}
    return {**tree, "content": records_to_tree(message.content if content else RecordDict())}


def message_from_tree(tree: Tree) -> Message:
    """Return the message that :func:`message_to_tree` wrote."""
    metadata = metadata_from_tree(tree["metadata"])
    if "error" in tree:
        return new_message(metadata, error=Error(*tree["error"]))
    return new_message(metadata, content=records_from_tree(tree["content"]))


def metadata_to_tree(metadata: Metadata) -> Tree:
    """Return a message's metadata as plain data."""
    return {name: getattr(metadata, name) for name in _METADATA}


def metadata_from_tree(tree: Tree) -> Metadata:
    """Return the metadata that :func:`metadata_to_tree` wrote."""
    metadata = Metadata(**tree)
    metadata.delivered_at = ""  # as Flower's Message sets it, for its older apps
    return metadata


def _record_to_tree(record: Record) -> tuple[str, Tree]:
    if isinstance(record, ArrayRecord):
        return "arrays", arrays_to_tree(record)
    return "metrics" if isinstance(record, MetricRecord) else "config", dict(cast(Any, record))


_KINDS: dict[str, Callable[[Any], Record]] = {
    "arrays": arrays_from_tree,
    "metrics": MetricRecord,
    "config": ConfigRecord,
}
