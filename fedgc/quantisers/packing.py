"""Pack integers of a few bits each into bytes, and read them back."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Numbers that are packed at a time: spread out, a bit takes a byte.
_CHUNK = 2**16


def packed_size(count: int, bits: int) -> int:
    """Return how many bytes `count` numbers of so many bits take.

    Examples
    --------
    >>> packed_size(3, 4), packed_size(0, 4), packed_size(5, 0)
    (2, 0, 0)
    """
    return (count * bits + 7) // 8


def pack_bits(codes: NDArray[np.uint16], bits: int) -> bytes:
    """Return the numbers one after another, the lowest bit of each first, with zeros up to a whole byte.

    Parameters
    ----------
    codes : ndarray of uint16, shape (count,)
        Numbers below ``2^bits``.
    bits : int
        From 1 to 16.

    Examples
    --------
    >>> pack_bits(np.array([1, 2, 3], dtype=np.uint16), 4).hex()
    '2103'
    """
    if bits in {8, 16}:
        return codes.astype(f"<u{bits // 8}").tobytes()
    place = np.arange(bits, dtype=np.uint16)
    parts = []
    for start in range(0, codes.size, _CHUNK):
        spread = ((codes[start : start + _CHUNK, None] >> place) & 1).astype(np.uint8)
        parts.append(np.packbits(spread.ravel(), bitorder="little").tobytes())
    return b"".join(parts)


def unpack_bits(data: bytes | memoryview, count: int, bits: int) -> NDArray[np.uint16]:
    """Return the numbers of :func:`pack_bits`.

    Raises
    ------
    ValueError
        If there are not exactly as many bytes, or the bits that fill the last byte are not zero.

    Examples
    --------
    >>> unpack_bits(bytes.fromhex("2103"), 3, 4).tolist()
    [1, 2, 3]
    >>> unpack_bits(bytes.fromhex("2113"), 3, 4)
    Traceback (most recent call last):
    ...
    ValueError: the bits beyond the last of 3 numbers must be zero; got others
    """
    check_filling(data, count, bits)
    return unpack_part(data, 0, count, bits)


def unpack_part(data: bytes | memoryview, start: int, stop: int, bits: int) -> NDArray[np.uint16]:
    """Return the numbers from `start` to `stop` of :func:`pack_bits`, of bytes that hold as many.

    Examples
    --------
    >>> unpack_part(bytes.fromhex("2103"), 1, 3, 4).tolist()
    [2, 3]
    """
    raw = np.frombuffer(data, np.uint8)
    if bits in {8, 16}:
        return raw.view(f"<u{bits // 8}")[start:stop].astype(np.uint16)
    first = start // 8 * 8  # eight numbers fill whole bytes
    codes = np.empty(stop - first, dtype=np.uint16)
    weight = (1 << np.arange(bits)).astype(np.uint16)
    for chunk in range(first, stop, _CHUNK):
        own = min(_CHUNK, stop - chunk)
        spread = np.unpackbits(raw[chunk * bits // 8 :], count=own * bits, bitorder="little").reshape(own, bits)
        codes[chunk - first : chunk - first + own] = spread @ weight
    return codes[start - first :]


def check_filling(data: bytes | memoryview, count: int, bits: int) -> None:
    """Raise ValueError unless so many numbers and zeros fill the bytes; see :func:`unpack_bits`."""
    raw = np.frombuffer(data, np.uint8)
    if raw.size != packed_size(count, bits):
        raise ValueError(f"{count} numbers of {bits} bits must take {packed_size(count, bits)} bytes; got {raw.size}")
    beyond = raw.size * 8 - count * bits
    if beyond and raw[-1] >> (8 - beyond):
        raise ValueError(f"the bits beyond the last of {count} numbers must be zero; got others")
