"""A random rotation before the rounding, so that no entry stands out of its bucket."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from fedgc.quantisers.base import Vector
from fedgc.quantisers.bucketed_norm import BucketedNorm

#: Most entries that are rotated together, a power of two: they then have all but equal sizes, and stay in the cache.
_LONGEST = 2**12
#: Draws the signs apart from the rounding, which callers draw from the same seed: an entry whose sign and rounding come
#: of the same random bits is rounded up where it is turned one way and down where it is turned the other.
_SIGNS = 1


class RotatedNorm(BucketedNorm):
    """Rotate the vector by ``H D``, signs D drawn from the seed and H Hadamard's matrix, and round that in buckets.

    Notes
    -----
    A rotation keeps norms, so that the variance is that of the rotated vector, which is known before the rounding; and
    it is linear, so that what is turned back has the mean x. It pays where a few entries of a bucket are much larger
    than the rest, gradients of embeddings say, since each becomes a share of all; where entries are of one size it
    buys nothing.

    The vector is cut into runs of 4096 entries and the rest into powers of two, so that none has to be filled up, which
    would cost up to as many bits again.

    References
    ----------
    A. T. Suresh et al., "Distributed mean estimation with limited communication", ICML 2017.

    Examples
    --------
    >>> x = np.zeros(512)
    >>> x[:8] = 1.0, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3
    >>> rotated, plain = RotatedNorm(bits=2), BucketedNorm(bits=2)
    >>> data = rotated.quantise(x, np.random.default_rng(1), seed=3)
    >>> rotated.dequantise(data, 512, seed=3).shape
    (512,)
    """

    name: ClassVar[str] = "rotated-norm"
    number: ClassVar[int] = 3

    def _turned(self, values: Vector, seed: int) -> Vector:
        turned = values * _signs(0, values.size, seed)
        for run in _runs(values.size):
            _hadamard(turned[run])
        return turned

    def _turned_back(self, values: Vector, seed: int, start: int) -> Vector:
        for run in _runs(values.size):
            _hadamard(values[run])
        values *= _signs(start, start + values.size, seed)
        return values

    def _turned_with(self, start: int, stop: int, size: int) -> tuple[int, int]:
        # What is left after the longest runs is one part: shorter runs are looked for from its beginning.
        return start // _LONGEST * _LONGEST, min(-(-stop // _LONGEST) * _LONGEST, size)


def _signs(start: int, stop: int, seed: int) -> Vector:
    """Return the signs of these entries: each is a bit of a stream in which one can begin anywhere."""
    first = start // 64
    stream = np.random.PCG64([seed, _SIGNS]).advance(first)
    words = stream.random_raw(-(-stop // 64) - first).astype("<u8")
    signs: Vector = np.unpackbits(words.view(np.uint8), bitorder="little").astype(np.float64)
    signs *= -2.0
    signs += 1.0
    return signs[start - 64 * first : stop - 64 * first]


def _runs(size: int) -> Iterator[slice]:
    """Yield runs of a power of two each; equal ones of the greatest length first."""
    start = 0
    while start < size:
        length = min(_LONGEST, 1 << (size - start).bit_length() - 1)
        yield slice(start, start + length)
        start += length


def _hadamard(values: Vector) -> None:
    """Multiply by the orthonormal Hadamard matrix, in place; it is its own inverse."""
    half = 1
    while half < values.size:
        pairs = values.reshape(-1, 2, half)
        first = pairs[:, 0] + pairs[:, 1]
        np.subtract(pairs[:, 0], pairs[:, 1], out=pairs[:, 1])
        pairs[:, 0] = first
        half *= 2
    values /= np.sqrt(values.size)
