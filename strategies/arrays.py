"""Look at Flower's arrays without copying them, and write a new model without a second one beside it."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord
from numpy.typing import NDArray

from fedgc.updates import Arrays, Update, all_finite, apply_update, in_dtypes

#: More than the header of any array that is not out to do harm.
_HEADER = 1024


def view(array: Array) -> NDArray[Any]:
    """Return what a Flower array holds, read-only and without a copy.

    Raises
    ------
    ValueError
        If it does not hold numbers in numpy's format.

    Notes
    -----
    Flower keeps an array as the bytes of a ``.npy`` file, and ``Array.numpy()`` copies them, which a server that takes
    in hundreds of models can do without.

    Examples
    --------
    >>> view(Array(np.array([[1.0, 2.0]]))).tolist()
    [[1.0, 2.0]]
    """
    data = memoryview(array.data)
    head = io.BytesIO(data[:_HEADER])
    version = np.lib.format.read_magic(head)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        return array.numpy()
    shape, fortran_order, dtype = readers[version](head)
    count = int(np.prod(shape, dtype=np.int64))
    body = data[head.tell() :]
    if dtype.hasobject or body.nbytes != count * dtype.itemsize:
        raise ValueError(f"an array of shape {shape} and type {dtype} must have {count * dtype.itemsize} bytes of data")
    if count == 0:
        return np.empty(shape, dtype)
    return np.frombuffer(body, dtype).reshape(shape, order="F" if fortran_order else "C")


def views(record: ArrayRecord) -> dict[str, NDArray[Any]]:
    """Return a view of every array of a record."""
    return {name: view(array) for name, array in record.items()}


def bound(array: NDArray[Any]) -> float:
    """Return a number that no entry exceeds in absolute value; finite exactly if all of them are.

    Examples
    --------
    >>> bound(np.array([3.0, -4.0])), bound(np.array([np.nan, 1.0])), bound(np.array([], dtype=np.int64))
    (5.0, nan, 0.0)
    """
    flat = array.reshape(-1)
    if flat.dtype in (np.float32, np.float64):
        # The length, one pass without a temporary: several times faster than asking of every entry.
        with np.errstate(over="ignore", invalid="ignore"):
            length = float(np.sqrt(flat @ flat))
        if np.isfinite(length):
            return length
    return float(np.abs(flat.astype(np.float64)).max(initial=0.0))


def moved_record(arrays: Arrays, update: Update) -> ArrayRecord | None:
    """Return ``arrays + update`` as a record, None if it is not finite. `update` is used up.

    Array by array, so that model and update are not there a second time.
    """
    record = ArrayRecord()
    for name, value in arrays.items():
        moved = apply_update({name: value}, {name: update.pop(name)})
        if not all_finite(moved):
            return None
        record[name] = Array(moved[name])
    return record


def in_the_types_of(arrays: Arrays, record: ArrayRecord) -> ArrayRecord:
    """Return the record with every array in the number type that it has in `arrays`.

    Flower's averages turn integers into float64, its adaptive strategies single precision too.
    """
    if all(record[name].dtype == str(value.dtype) for name, value in arrays.items() if name in record):
        return record
    return ArrayRecord({name: Array(value) for name, value in in_dtypes(views(record), arrays).items()})
