"""One scale for the whole vector, its Euclidean norm: the paper's quantiser."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedgc.quantisers.base import Quantiser, Vector


class GlobalNorm(Quantiser):
    """The paper's quantiser: ``x -> s sign(x) l / M`` with s = |x|_2 and stochastic rounding to the level l.

    Notes
    -----
    Of n entries the typical one is ``s / sqrt(n)``, so that with far fewer than ``sqrt(n)`` levels nearly all entries
    round to zero or one: the variance factor of normal entries is then ``sqrt(2 n / pi) / M - 1``, which is 17 for two
    million entries at 7 bits. It is here to compare with; see :class:`fedgc.quantisers.BucketedNorm`.

    References
    ----------
    H. Song, J. Choi, arXiv 2605.15890.

    Examples
    --------
    >>> x = np.random.default_rng(1).standard_normal(10000)
    >>> round(GlobalNorm(bits=7).variance_factor(x), 2), round(GlobalNorm(bits=10).variance_factor(x), 4)
    (0.42, 0.0064)
    """

    name: ClassVar[str] = "global-norm"
    number: ClassVar[int] = 1

    def n_buckets(self, size: int) -> int:
        """Return 1; see the base class."""
        return 1

    def _bucket_of(self, start: int, stop: int) -> NDArray[np.intp]:
        return np.zeros(stop - start, dtype=np.intp)

    def _scales(self, values: Vector, entries: int) -> Vector:
        largest = float(np.abs(values).max(initial=0.0))
        if largest == 0.0:
            return np.zeros(1)
        return np.array([largest * float(np.linalg.norm(values / largest)) * np.sqrt(entries / values.size)])
