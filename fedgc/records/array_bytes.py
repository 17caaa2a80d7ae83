"""Flower's arrays: read without copying them, and written once, to the same bytes as Flower's own."""

from __future__ import annotations

import io
import math
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from flwr.app import Array, ArrayRecord
from flwr.common.constant import SType
from numpy.typing import NDArray

from fedgc.records.copies import new_array

#: Bytes of the header of an array; longer ones are out to do harm.
LONGEST_HEADER = 1024
#: Bytes that tell how long the header of an array is.
_MAGIC = 12


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


@lru_cache(maxsize=4096)
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


def views(record: ArrayRecord) -> dict[str, NDArray[Any]]:
    """Return a view of every array of a record."""
    return {name: view(array) for name, array in record.items()}


def record_array(value: NDArray[Any]) -> Array:
    """Return a Flower array that holds the same; its bytes are written once, where Flower's own way writes them twice.

    Examples
    --------
    >>> made, own = record_array(np.eye(2)), Array(np.eye(2))
    >>> made == own
    True
    """
    value = np.asarray(value, order="C")
    header, name = _header(value.dtype, value.shape)
    body = value.reshape(-1).view(np.uint8)
    return new_array(name, value.shape, SType.NUMPY, b"".join([header, body.data]))


@lru_cache(maxsize=4096)
def _header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> tuple[bytes, str]:
    """Return the header of a ``.npy`` file of such an array in C order, and the name of its type."""
    # Kept, since all replies of a run have the same: numpy takes longer to write one than a small array.
    head = io.BytesIO()
    described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(head, described)
    return head.getvalue(), str(dtype)
