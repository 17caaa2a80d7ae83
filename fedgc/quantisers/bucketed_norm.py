"""A scale for each bucket of entries, so that the scale does not grow with the vector."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedgc.quantisers.base import Quantiser, Vector
from fedgc.validation import check_integer


class BucketedNorm(Quantiser):
    """Round each bucket of consecutive entries by its largest one.

    Parameters
    ----------
    bits : int
        Bits per entry, from 0 to 16.
    bucket : int
        Entries in a bucket; the last one may have fewer. Each bucket takes 32 bits for its scale.

    Notes
    -----
    The scale must be at least the largest entry, or rounding cannot be unbiased; of those scales the least, the maximum
    norm, has the finest grid: the variance of an entry is at most ``(s / M)^2 / 4``, and for two bits it is
    ``|x| (s - |x|)``, which grows with s for every x. Among 512 normal entries it is 3 standard deviations, where the
    Euclidean norm is 23: at many bits a variance smaller by 55.

    Smaller buckets have smaller scales, and more of them; at 512 these take a sixteenth of a bit per entry.

    Examples
    --------
    >>> x = np.random.default_rng(1).standard_normal(10000)
    >>> round(BucketedNorm(bits=8).variance_factor(x), 6), BucketedNorm(bits=8).n_bytes(10000)
    (0.000117, 10096)
    """

    name: ClassVar[str] = "bucketed-norm"
    number: ClassVar[int] = 2

    def __init__(self, bits: int, bucket: int = 512) -> None:
        super().__init__(bits)
        self.bucket = check_integer("bucket", bucket, low=1)

    def n_buckets(self, size: int) -> int:
        """Return the number of buckets; see the base class."""
        return -(-size // self.bucket)

    def _bucket_of(self, start: int, stop: int) -> NDArray[np.intp]:
        return np.arange(start, stop, dtype=np.intp) // self.bucket

    def _scales(self, values: Vector, entries: int) -> Vector:
        if values.size == 0:
            return np.zeros(0)
        return np.maximum.reduceat(np.abs(values), np.arange(0, values.size, self.bucket))
