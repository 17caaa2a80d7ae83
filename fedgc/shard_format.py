"""A shard's data as bytes: what is hashed, sent and kept on disk."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Of the safetensors format: the types that numpy has too, by the names that stand in its headers.
_DTYPES = {
    name: np.dtype(code)
    for name, code in {
        "BOOL": "?",
        "U8": "u1",
        "I8": "i1",
        "U16": "<u2",
        "I16": "<i2",
        "F16": "<f2",
        "U32": "<u4",
        "I32": "<i4",
        "F32": "<f4",
        "U64": "<u8",
        "I64": "<i8",
        "F64": "<f8",
    }.items()
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
#: Longest header in bytes; the format itself allows 100 MB, which names and shapes of a shard never need.
HEADER_LIMIT = 2**20
#: What numpy before 2.0 allows; nothing sensible has more.
_MOST_DIMENSIONS = 32
_DIGEST = re.compile(r"[0-9a-f]{64}")


def pack_shard(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Return a shard's arrays as bytes, the same bytes for the same arrays.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        The data, of any shapes: booleans, integers or floats. Text has to be turned into numbers first.

    Raises
    ------
    ValueError
        If there is no array, a name is no string, or an array holds anything else, objects for instance.

    Notes
    -----
    The bytes are a file of the safetensors format: the length of the header in eight bytes, a header in JSON with type,
    shape and place of every array, and the arrays. Reading it runs no code, which a pickle does, and every size is
    known before anything is reserved, which a compressed npz does not offer.

    References
    ----------
    "Safetensors: format", https://github.com/huggingface/safetensors.

    Examples
    --------
    >>> data = pack_shard({"x": np.eye(2), "y": np.array([0, 1])})
    >>> unpack_shard(data)["y"].tolist(), len(shard_digest(data))
    ([0, 1], 64)
    """
    head, values = laid_out(arrays)
    return b"".join([head, *(value.tobytes() for value in values)])


def laid_out(
    arrays: Mapping[str, NDArray[Any]], *, header_limit: int = HEADER_LIMIT
) -> tuple[bytes, list[NDArray[Any]]]:
    """Return the first bytes of :func:`pack_shard`, and the arrays whose bytes follow, in that order.

    For what is too large to be in memory a second time. `header_limit` is the largest header in bytes.
    """
    if not isinstance(arrays, Mapping) or not arrays or not all(isinstance(name, str) for name in arrays):
        raise ValueError(f"a shard must be a mapping of names to at least one array; got {arrays!r:.80}")
    values: dict[str, NDArray[Any]] = {}
    for name, given in arrays.items():
        value = np.asarray(given)
        value = np.asarray(value, dtype=value.dtype.newbyteorder("<"), order="C")
        if value.dtype not in _NAMES or name == "__metadata__":
            raise ValueError(f"array {name!r} of a shard must hold booleans, integers or floats; got {value.dtype}")
        values[name] = value
    header: dict[str, object] = {}
    start = 0
    # Wide types first, so that all of them begin at a multiple of their size.
    order = sorted(values, key=lambda name: (-values[name].itemsize, name))
    for name in order:
        value = values[name]
        header[name] = {
            "dtype": _NAMES[value.dtype],
            "shape": list(value.shape),
            "data_offsets": [start, start + value.nbytes],
        }
        start += value.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > header_limit:
        raise ValueError(f"names and shapes of a shard must take at most {header_limit} bytes; got {len(text)}")
    return len(text).to_bytes(8, "little") + text, [values[name] for name in order]


def unpack_shard(data: bytes | bytearray, *, header_limit: int = HEADER_LIMIT) -> dict[str, NDArray[Any]]:
    """Return the arrays of :func:`pack_shard`, whatever else the bytes may be.

    Parameters
    ----------
    data : bytes or bytearray
        The packed shard. The arrays share the memory of a bytearray; bytes are copied, so that the arrays can be
        written to.
    header_limit : int
        Largest header in bytes.

    Raises
    ------
    ValueError
        If the bytes are not exactly those of some arrays; nothing is reserved that the bytes do not hold.

    Examples
    --------
    >>> unpack_shard(bytes(8))
    Traceback (most recent call last):
    ...
    ValueError: the header of a packed shard must be JSON; got Expecting value: line 1 column 1 (char 0)
    """
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(len(data) - 8, header_limit):
        raise ValueError(
            f"a packed shard must begin with a header that it holds; got {len(data)} bytes, header of {length}"
        )
    try:
        header = json.loads(data[8 : 8 + length].decode())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the header of a packed shard must be JSON; got {error!s:.80}") from None
    if not isinstance(header, dict):
        raise ValueError(f"the header of a packed shard must name its arrays; got {header!r:.80}")
    header.pop("__metadata__", None)  # other writers may leave notes there
    buffer = data if isinstance(data, bytearray) else bytearray(data)
    body, end = memoryview(buffer)[8 + length :], 0
    arrays: dict[str, NDArray[Any]] = {}
    for name, entry in sorted(header.items(), key=lambda item: _offsets(*item)):
        start, stop = _offsets(name, entry)
        dtype, shape = _DTYPES.get(str(entry.get("dtype"))), entry.get("shape")
        if dtype is None:
            raise ValueError(f"array {name!r} must be of a known type; got {entry.get('dtype')!r:.80}")
        if not isinstance(shape, list) or len(shape) > _MOST_DIMENSIONS or not all(map(_is_count, shape)):
            raise ValueError(f"array {name!r} must have a shape; got {shape!r:.80}")
        # Exact integers: a product that overflows must not look like a small one.
        if start != end or stop > len(body) or stop - start != math.prod(shape) * dtype.itemsize:
            raise ValueError(
                f"array {name!r} must fill its place of {len(body)} bytes; got {shape!r:.80} at {start} to {stop}"
            )
        try:
            arrays[name] = np.frombuffer(body[start:stop], dtype).reshape(shape)
        except (ValueError, OverflowError):  # an empty array with a huge side
            raise ValueError(f"array {name!r} must have a shape that numpy can hold; got {shape!r:.80}") from None
        end = stop
    if not arrays or end != len(body):
        raise ValueError(f"a packed shard must be filled by its arrays; got {len(body) - end} bytes beyond them")
    return arrays


def shard_digest(data: bytes | bytearray) -> str:
    """Return the SHA-256 of a packed shard, 64 hexadecimal digits, by which it is named everywhere."""
    return hashlib.sha256(data).hexdigest()


def check_digest(name: str, value: object) -> str:
    """Return `value` if it is a digest, 64 lower-case hexadecimal digits and nothing else, or raise ValueError."""
    if not isinstance(value, str) or _DIGEST.fullmatch(value) is None:
        raise ValueError(f"{name} must be 64 hexadecimal digits; got {value!r:.80}")
    return value


def _offsets(name: str, entry: object) -> tuple[int, int]:
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_count, offsets)):
        raise ValueError(f"array {name!r} must say where it begins and ends; got {entry!r:.80}")
    return offsets[0], offsets[1]


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0
