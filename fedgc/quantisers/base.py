"""What a quantiser is: unbiased stochastic rounding of a vector to a grid of a few bits, whose variance is known."""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedgc.quantisers.packing import check_filling, pack_bits, packed_size, unpack_part
from fedgc.validation import check_integer

Vector = NDArray[np.float64]

#: Most bits of an entry: more than these are no fewer than what half precision takes.
MOST_BITS = 16
#: What packed vectors begin with: the format, the quantiser's number, the bits, and the number of entries.
_HEADER = struct.Struct("<4sBBxxQ")
#: The first format had a vector for each array, and other signs of rotations.
_FORMAT = b"fgq2"
#: Entries that are rounded at a time, a multiple of 8: what is worked out of each takes many times its room.
_AT_ONCE = 2**18
#: Entries that are rounded to see what rounding as many or more of them costs.
_LOOKED_AT = 10**6


class Rounding(NamedTuple):
    """How the entries of a vector are rounded: each goes up a step with a chance of its own, or down.

    Attributes
    ----------
    scale : ndarray of float32, shape (n_buckets,)
        What the largest grid point of each bucket stands for.
    unit : ndarray, shape (n,)
        What one stands for in each entry: its bucket's scale over the number M of the largest grid point.
    down : ndarray of int32, shape (n,)
        The grid point below, from -M to M.
    step : int
        How far the next one is.
    chance : ndarray, shape (n,)
        Probability to go up, such that the mean is the entry.
    """

    scale: NDArray[np.float32]
    unit: Vector
    down: NDArray[np.int32]
    step: int
    chance: Vector


class Quantiser(ABC):
    """Round a vector to `bits` per entry, unbiased: the mean over the rounding is the vector.

    To add a quantiser, subclass this in a file of its own and add it to ``QUANTISERS`` in
    ``fedgc/quantisers/__init__.py``.

    Parameters
    ----------
    bits : int
        Bits per entry from 0 to 16: a sign and a level from 0 to ``M = 2^(bits - 1) - 1``. A single bit is a sign, and
        stands for plus or minus the scale. With none nothing is sent.

    Raises
    ------
    ValueError
        If the bits lie outside of that.

    Notes
    -----
    An entry x of a bucket with scale s becomes ``s l / M`` for the grid point l next below or above ``M x / s``, above
    with the probability ``f = M x / s - floor(M x / s)``. The mean is x, and the variance ``(s / M)^2 f (1 - f)``;
    these sums over the entries are what :meth:`variance` returns, of the vector at hand and not of the worst one. For
    one bit, with the grid points -1 and 1, it is ``s^2 - x^2``.

    Rounding is by the sign and magnitude in the paper, and by the signed number here, which is the same: of the two
    neighbours each has the same probability either way.

    References
    ----------
    H. Song, J. Choi, arXiv 2605.15890; D. Alistarh et al., "QSGD", NeurIPS 2017.
    """

    name: ClassVar[str]
    #: Stands for the quantiser in packed vectors.
    number: ClassVar[int]

    def __init__(self, bits: int) -> None:
        self.bits = check_integer("bits", bits, low=0, high=MOST_BITS)

    def __repr__(self) -> str:
        """Return the name and the bits."""
        return f"{type(self).__name__}(bits={self.bits})"

    def with_bits(self, bits: int) -> Quantiser:
        """Return the same quantiser of another number of bits."""
        return type(self)(bits)

    @property
    def largest(self) -> int:
        """Number M of the largest grid point."""
        return max((1 << self.bits >> 1) - 1, 1)

    def rounding(self, vector: ArrayLike, seed: int = 0) -> Rounding:
        """Return how a vector's entries are rounded, for at least one bit.

        Raises
        ------
        ValueError
            If it is no vector of finite numbers, or has numbers beyond single precision.
        """
        values, scale = self._with_scales(vector, seed)
        return self._rounding_of(values, scale, 0)

    def _with_scales(
        self, vector: ArrayLike, seed: int, entries: int | None = None
    ) -> tuple[Vector, NDArray[np.float32]]:
        values = self._turned(_checked(vector), seed)
        return values, _rounded_up(self._scales(values, values.size if entries is None else entries))

    def _rounding_of(self, values: Vector, scale: NDArray[np.float32], start: int) -> Rounding:
        """Return how entries are rounded that begin with number `start` of the vector whose scales are given."""
        unit = scale[self._bucket_of(start, start + values.size)].astype(np.float64) / self.largest
        y = np.divide(values, unit, out=np.zeros_like(values), where=unit > 0.0)
        if self.bits == 1:
            return Rounding(
                scale, unit, np.full(values.size, -1, dtype=np.int32), 2, np.clip((y + 1.0) / 2.0, 0.0, 1.0)
            )
        # Single precision takes a scale up, never down, so that this only guards against the division's last bit.
        np.clip(y, -self.largest, self.largest, out=y)
        floor = np.floor(y)
        return Rounding(scale, unit, floor.astype(np.int32), 1, y - floor)

    def _pieces(self, values: Vector, scale: NDArray[np.float32]) -> Iterator[Rounding]:
        for start in range(0, values.size, _AT_ONCE):
            yield self._rounding_of(values[start : start + _AT_ONCE], scale, start)

    def variance(self, vector: ArrayLike, seed: int = 0, *, entries: int | None = None) -> float:
        """Return ``E |Q(x) - x|^2`` of the vector x, in closed form; infinite for no bits, unless x is zero.

        Parameters
        ----------
        vector : array_like, shape (n,)
            The vector.
        seed : int
            The seed of :meth:`quantise`.
        entries : int, optional
            How many entries there are of which these are a sample, n by default: one scale for all grows with them. The
            variance is that of the sample's entries, as parts of the whole.

        Raises
        ------
        ValueError
            See :meth:`rounding`; or if there are fewer entries than in the sample.

        Examples
        --------
        >>> from fedgc.quantisers import GlobalNorm
        >>> GlobalNorm(bits=2).variance([3.0, 4.0]), GlobalNorm(bits=0).variance([3.0, 4.0])
        (10.0, inf)
        >>> GlobalNorm(bits=2).variance([3.0, 4.0], entries=8)
        45.0
        """
        if self.bits == 0:
            return np.inf if _checked(vector).any() else 0.0
        values, scale = self._with_scales(vector, seed, self._at_least(np.size(np.asarray(vector)), entries))
        return float(sum(_variance_of(how) for how in self._pieces(values, scale)))

    def variance_factor(self, vector: ArrayLike, seed: int = 0, *, entries: int | None = None) -> float:
        """Return the omega with ``E |Q(x) - x|^2 = omega |x|^2``, zero for a vector of zeros; see :meth:`variance`."""
        values = _checked(vector)
        largest = float(np.abs(values).max(initial=0.0))
        if largest == 0.0:
            return 0.0
        scaled = values / largest  # squares of tiny entries vanish
        with np.errstate(over="ignore"):
            variance = np.float64(self.variance(values, seed, entries=entries))
            return float(variance / largest / largest / (scaled @ scaled))

    def usual_variance_factor(self, entries: int) -> float:
        """Return the variance factor of a vector of so many normal numbers, for one that has not been seen.

        Examples
        --------
        >>> from fedgc.quantisers import GlobalNorm
        >>> round(GlobalNorm(bits=7).usual_variance_factor(2_000_000), 1)
        16.9
        """
        sample = np.random.default_rng(0).standard_normal(min(entries, _LOOKED_AT))
        return self.variance_factor(sample, entries=entries)

    @staticmethod
    def _at_least(size: int, entries: int | None) -> int:
        return size if entries is None else check_integer("entries", entries, low=size)

    def quantise(self, vector: ArrayLike, rng: np.random.Generator, seed: int = 0) -> bytes:
        """Return the rounded vector as bytes, none for no bits.

        Parameters
        ----------
        vector : array_like, shape (n,)
            The vector.
        rng : Generator
            What the rounding is drawn from.
        seed : int
            Seed that :meth:`dequantise` is given too; only rotations use it.

        Raises
        ------
        ValueError
            See :meth:`rounding`.
        """
        return self.quantised(vector, rng, seed)[0]

    def quantised(self, vector: ArrayLike, rng: np.random.Generator, seed: int = 0) -> tuple[bytes, float]:
        """Return what :meth:`quantise` does, and the variance, as :meth:`variance` says, without a second look."""
        if self.bits == 0:
            return b"", self.variance(vector)
        values, scale = self._with_scales(vector, seed)
        parts, variance = [self._head(scale, values.size)], 0.0
        for how in self._pieces(values, scale):
            parts.append(self._packed(how.down + how.step * (rng.random(how.chance.size) < how.chance)))
            variance += _variance_of(how)
        return b"".join(parts), variance

    def pack(self, scale: NDArray[np.float32], level: NDArray[np.int32]) -> bytes:
        """Return scales, (n_buckets,), and grid points from -M to M, (n,), as bytes."""
        return self._head(scale, level.size) + self._packed(level)

    def _head(self, scale: NDArray[np.float32], size: int) -> bytes:
        return _HEADER.pack(_FORMAT, self.number, self.bits, size) + scale.astype("<f4").tobytes()

    def _packed(self, level: NDArray[np.int32]) -> bytes:
        codes = np.abs(level) * (self.bits > 1)
        codes |= (level < 0).astype(codes.dtype) << (self.bits - 1)
        return pack_bits(codes.astype(np.uint16), self.bits)

    def dequantise(self, data: bytes | memoryview, size: int, seed: int = 0) -> Vector:
        """Return the vector that the bytes of :meth:`quantise` stand for, shape (size,); zeros for no bits.

        Parameters
        ----------
        data : bytes or memoryview
            The bytes, from anyone.
        size : int
            How many entries there must be: known to who reads, so that nothing is reserved because the bytes say so.
        seed : int
            The seed of :meth:`quantise`.

        Raises
        ------
        ValueError
            If the bytes are not exactly those of such a vector.
        """
        self.check(data, size)
        return self.dequantise_part(data, size, 0, size, seed)

    def dequantise_part(self, data: bytes | memoryview, size: int, start: int, stop: int, seed: int = 0) -> Vector:
        """Return the entries from `start` to `stop`, (stop - start,), of what :meth:`dequantise` returns.

        The others are not unpacked, but for those in the same rotations. The bytes must be good ones: see
        :meth:`check`.

        Examples
        --------
        >>> from fedgc.quantisers import BucketedNorm
        >>> data = BucketedNorm(bits=2).quantise([4.0, -4.0, 0.0, 4.0], np.random.default_rng(1))
        >>> BucketedNorm(bits=2).dequantise_part(data, 4, 1, 3).tolist()
        [-4.0, 0.0]
        """
        if self.bits == 0:
            return np.zeros(stop - start)
        scale, wire = self._parts(data, size)
        low, high = self._turned_with(start, stop, size)
        codes = unpack_part(wire, low, high, self.bits)
        sign = 1.0 - 2.0 * (codes >> (self.bits - 1))
        level = sign if self.bits == 1 else sign * (codes & self.largest)
        level *= scale[self._bucket_of(low, high)].astype(np.float64) / self.largest
        return self._turned_back(level, seed, low)[start - low : stop - low]

    def check(self, data: bytes | memoryview, size: int) -> None:
        """Raise ValueError unless :meth:`dequantise` can read the bytes; no entry is unpacked."""
        check_integer("size", size, low=0)
        if len(data) != (wanted := self.n_bytes(size)):
            raise ValueError(f"{size} entries of {self.bits} bits must take {wanted} bytes; got {len(data)}")
        if self.bits == 0:
            return
        head, told = bytes(data[: _HEADER.size]), (_FORMAT, self.number, self.bits, size)
        if head != _HEADER.pack(*told):
            got = _HEADER.unpack(head)
            raise ValueError(f"a packed vector must begin with format, quantiser, bits and size {told}; got {got}")
        scale, wire = self._parts(data, size)
        good = np.isfinite(scale) & (scale >= 0.0)
        if not good.all():
            bad = int(np.argmin(good))
            raise ValueError(f"the scale of bucket {bad} must be finite and at least 0; got {scale[bad]}")
        check_filling(wire, size, self.bits)

    def _parts(self, data: bytes | memoryview, size: int) -> tuple[NDArray[np.float32], memoryview]:
        end = _HEADER.size + 4 * self.n_buckets(size)
        wire = memoryview(data)
        return np.frombuffer(wire[_HEADER.size : end], "<f4"), wire[end:]

    def n_bytes(self, size: int) -> int:
        """Return how many bytes a vector of so many entries takes."""
        return self.bits and _HEADER.size + 4 * self.n_buckets(size) + packed_size(size, self.bits)

    @abstractmethod
    def n_buckets(self, size: int) -> int:
        """Return into how many buckets, each with a scale, so many entries are divided."""

    @abstractmethod
    def _bucket_of(self, start: int, stop: int) -> NDArray[np.intp]:
        """Return the bucket of each of these entries."""

    @abstractmethod
    def _scales(self, values: Vector, entries: int) -> Vector:
        """Return the scale of each bucket, at least its largest entry, of values that are a sample of so many."""

    def _turned(self, values: Vector, seed: int) -> Vector:
        """Return what is rounded in place of the values, of the same length and norm."""
        return values

    def _turned_back(self, values: Vector, seed: int, start: int) -> Vector:
        """Return what the values, which begin with entry `start`, were turned from, perhaps in their place."""
        return values

    def _turned_with(self, start: int, stop: int, size: int) -> tuple[int, int]:
        """Return from where to where entries must be known to turn these back."""
        return start, stop


def _variance_of(how: Rounding) -> float:
    return float(np.sum((how.step * how.unit) ** 2 * how.chance * (1.0 - how.chance)))


def _checked(vector: ArrayLike) -> Vector:
    values = np.asarray(vector, dtype=np.float64)
    if values.ndim != 1 or not np.isfinite(values).all():
        what = f"shape {values.shape}" if values.ndim != 1 else "NaN or infinity"
        raise ValueError(f"vector must have one dimension and finite entries; got {what}")
    return values


def _rounded_up(scale: Vector) -> NDArray[np.float32]:
    """Return the scales in single precision, none below what it was."""
    with np.errstate(over="ignore"):
        single = scale.astype(np.float32)
        single = np.where(single < scale, np.nextafter(single, np.float32(np.inf)), single)
    if not np.isfinite(single).all():
        raise ValueError(f"scales must be finite in single precision; got {scale.max():g}")
    return single
