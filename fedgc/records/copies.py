"""Flower's records and messages without a check of every entry: copies of what has been checked, a look by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, Metadata, MetricRecord, RecordDict

Record = TypeVar("Record", ArrayRecord, MetricRecord, ConfigRecord)
OfRecords = TypeVar("OfRecords", ArrayRecord, MetricRecord, ConfigRecord, RecordDict)


def own_copy(record: Record) -> Record:
    """Return a record with entries of its own: nothing that is done to it, or to a list in it, reaches the other one.

    Notes
    -----
    ``ConfigRecord(dict(record))`` looks at the type of every entry again, which takes some 15 us where this takes one,
    and leaves lists shared; there are several such copies for each message of a run. This is the one place that writes
    into a record past these checks: what it writes has been through them. The bytes of arrays are immutable, and shared
    by all copies; the :class:`flwr.app.Array` around them is not.

    Examples
    --------
    >>> sent = ConfigRecord({"lr": 0.1, "ids": [1, 2]})
    >>> got = own_copy(sent)
    >>> got["ids"].append(3)
    >>> got["lr"] = 0.2
    >>> sent
    {'lr': 0.1, 'ids': [1, 2]}
    """
    copy = record.copy()
    data: dict[str, Any] = copy.__dict__["_data"]
    for name, value in data.items():  # values are replaced, and no name is added
        if isinstance(value, list):
            data[name] = value.copy()
        elif isinstance(value, Array):
            data[name] = new_array(value.dtype, value.shape, value.stype, value.data)
    return copy


def own_records(content: RecordDict) -> RecordDict:
    """Return records of the same names, each with entries of its own.

    Examples
    --------
    >>> sent = RecordDict({"config": ConfigRecord({"lr": 0.1})})
    >>> own_records(sent)["config"]["lr"] = 0.2
    >>> sent["config"]
    {'lr': 0.1}
    """
    copy = content.copy()
    data: dict[str, Any] = copy.__dict__["_data"]
    for name, record in data.items():
        data[name] = own_copy(record)
    return copy


def checked(kind: type[OfRecords], entries: Mapping[str, Any]) -> OfRecords:
    """Return a record of entries that are known to be of the types that it takes: made here, or taken from another.

    Examples
    --------
    >>> checked(ConfigRecord, {"ids": [1, 2]}) == ConfigRecord({"ids": [1, 2]})
    True
    """
    record = kind()
    record.__dict__["_data"].update(entries)
    return record


def config_of(content: RecordDict, name: str) -> ConfigRecord | None:
    """Return the ConfigRecord of that name, None if there is none.

    Flower's own ``content.config_records`` is a copy that writes back, made and checked anew whenever it is asked for.

    Examples
    --------
    >>> content = RecordDict({"config": ConfigRecord({"lr": 0.1}), "metrics": MetricRecord({"loss": 0.5})})
    >>> config_of(content, "config"), config_of(content, "metrics"), config_of(content, "other")
    ({'lr': 0.1}, None, None)
    """
    record = content.get(name)
    return record if isinstance(record, ConfigRecord) else None


def new_array(dtype: str, shape: tuple[int, ...], stype: str, data: bytes) -> Array:
    """Return a Flower array of these fields, which are known to be of the right types.

    Examples
    --------
    >>> import numpy as np
    >>> made = Array(np.ones(2))
    >>> new_array(made.dtype, made.shape, made.stype, made.data) == made
    True
    """
    array = Array.__new__(Array)
    array.__dict__.update(dtype=dtype, shape=shape, stype=stype, data=data)
    return array


def new_message(metadata: Metadata, *, content: RecordDict | None = None, error: Error | None = None) -> Message:
    """Return a message with this metadata, and with a content or an error."""
    # As Message(metadata=..., content=...) by which Flower's own runtimes rebuild a message, but for a check of eight
    # arguments; three are made for each message of a run.
    made = Message.__new__(Message)
    made.__dict__.update(_metadata=metadata, _content=content, _error=error)
    return made


def copy_of_metadata(source: Metadata) -> Metadata:
    """Return metadata of its own with the same values."""
    metadata = Metadata.__new__(Metadata)
    metadata.__dict__.update(source.__dict__)
    return metadata
