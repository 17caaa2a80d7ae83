"""Look at Flower's arrays without copying them, and write a new model without a second one beside it."""

from __future__ import annotations

import io
import math
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from fedgc.strategies.messages.reply_limits import LONGEST_HEADER
from flwr.app import Array, ArrayRecord
from numpy.typing import NDArray

from fedgc.updates import Arrays, Update, apply_update, in_dtypes
from fedgc.updates.weighted_sum import squared_length

#: Bytes that tell how long the header of an array is.
_MAGIC = 12
#: Bytes of arrays that replies which are asked for together may have.
_BYTES_AT_ONCE = 2**26


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
    start = _header_end(bytes(data[:_MAGIC]))
    if start > LONGEST_HEADER:
        raise ValueError(f"the header of an array must have at most {LONGEST_HEADER} bytes; got {start}")
    shape, order, dtype, n_bytes = _read_header(bytes(data[:start]))
    body = data[start:]
    # Entries of no bytes could be as many as one likes, and numpy would reserve some for each.
    if dtype.hasobject or dtype.itemsize == 0 or body.nbytes != n_bytes:
        raise ValueError(f"an array of shape {shape} and type {dtype} must have {n_bytes} bytes of data")
    if n_bytes == 0:
        return np.empty(shape, dtype)
    return np.frombuffer(body, dtype).reshape(shape, order=order)


def _header_end(magic: bytes) -> int:
    """Return where the header of a ``.npy`` file ends that begins with these bytes."""
    version = np.lib.format.read_magic(io.BytesIO(magic))
    width = 2 if version == (1, 0) else 4
    return np.lib.format.MAGIC_LEN + width + int.from_bytes(magic[np.lib.format.MAGIC_LEN :][:width], "little")


@lru_cache(maxsize=4096)
def _read_header(header: bytes) -> tuple[tuple[int, ...], Literal["C", "F"], np.dtype[Any], int]:
    # Kept, since all replies have the same headers, and Python takes longer to parse one than to add a small array.
    head = io.BytesIO(header)
    version = np.lib.format.read_magic(head)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran_order, dtype = read(head)
    return shape, "F" if fortran_order else "C", dtype, math.prod(shape) * dtype.itemsize


def record_array(value: NDArray[Any]) -> Array:
    """Return a Flower array that holds the same; its bytes are written once, where Flower's own way writes them twice.

    Examples
    --------
    >>> made, own = record_array(np.eye(2)), Array(np.eye(2))
    >>> made == own
    True
    """
    value = np.asarray(value, order="C")
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, np.lib.format.header_data_from_array_1_0(value))
    body = value.reshape(-1).view(np.uint8)
    return Array(str(value.dtype), tuple(value.shape), "numpy.ndarray", b"".join([head.getvalue(), body.data]))


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
    if array.dtype.kind == "f" and np.isfinite(squared := squared_length(array)):
        return math.sqrt(squared)
    return float(np.abs(array.astype(np.float64)).max(initial=0.0))


def check_finite(initial_arrays: ArrayRecord) -> None:
    """Raise ValueError if an array that training is to begin with is not finite.

    Every reply would hold the same, and be left out as if its client were to blame.

    Examples
    --------
    >>> check_finite(ArrayRecord({"w": Array(np.array([1.0, np.nan]))}))
    Traceback (most recent call last):
    ...
    ValueError: initial_arrays must be finite; got NaN or infinity in array 'w'
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
