"""How large a model's arrays are, and a new model without a second one beside it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from flwr.app import ArrayRecord
from numpy.typing import NDArray

from fedgc.records.array_bytes import record_array, view, views
from fedgc.updates import Arrays, Update, apply_update, in_dtypes
from fedgc.updates.weighted_sum import squared_length

#: Bytes of arrays that replies which are asked for together may have.
_BYTES_AT_ONCE = 2**26


def bound(array: NDArray[Any]) -> float:
    """Return a number that no entry exceeds in absolute value; finite exactly if all of them are.

    Examples
    --------
    >>> bound(np.array([3.0, -4.0])), bound(np.array([np.nan, 1.0])), bound(np.array([], dtype=np.int64))
    (5.0, nan, 0.0)
    """
    if array.dtype.kind == "f" and np.isfinite(squared := squared_length(array)):
        return math.sqrt(squared)
    return float(np.abs(array.astype(np.float64)).max(initial=0.0))


def check_finite(initial_arrays: ArrayRecord) -> None:
    """Raise ValueError if an array that training is to begin with is not finite.

    Every reply would hold the same, and be left out as if its client were to blame.

    Examples
    --------
    >>> check_finite(ArrayRecord([np.array([1.0, np.nan])]))
    Traceback (most recent call last):
    ...
    ValueError: initial_arrays must be finite; got NaN or infinity in array '0'
    """
    for name, array in initial_arrays.items():
        value = view(array)
        if value.dtype.kind == "f" and not np.isfinite(bound(value)):
            raise ValueError(f"initial_arrays must be finite; got NaN or infinity in array {name!r}")


def moved_record(arrays: Arrays, update: Update) -> ArrayRecord | None:
    """Return ``arrays + update`` as a record, None if it is not finite. `update` is used up.

    Array by array, so that model and update are not there a second time.
    """
    record = ArrayRecord()
    for name, value in arrays.items():
        change = update.pop(name)
        if change.dtype == value.dtype:
            with np.errstate(over="ignore"):
                moved = np.add(value, change, out=change)
        else:
            moved = apply_update({name: value}, {name: change})[name]
        if not np.isfinite(bound(moved)):
            return None
        record[name] = record_array(moved)
    return record


def in_the_types_of(arrays: Arrays, record: ArrayRecord) -> ArrayRecord:
    """Return the record with every array in the number type that it has in `arrays`.

    Flower's averages turn integers into float64, its adaptive strategies single precision too.
    """
    if all(record[name].dtype == str(value.dtype) for name, value in arrays.items() if name in record):
        return record
    return ArrayRecord({name: record_array(value) for name, value in in_dtypes(views(record), arrays).items()})


def replies_at_once(arrays: ArrayRecord) -> int:
    """Return for how many messages replies are asked for at a time, so that few large models are in memory at once.

    Notes
    -----
    A look over HTTP costs some ten milliseconds however much it asks for, so small models are all asked for together.

    Examples
    --------
    >>> replies_at_once(ArrayRecord([np.zeros(2**20, dtype=np.float32)]))
    15
    """
    size = sum(len(array.data) for array in arrays.values())
    return max(1, _BYTES_AT_ONCE // max(size, 1))
