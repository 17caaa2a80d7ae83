"""A weighted sum of updates, not written down before it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from fedgc.updates.number_types import Arrays
from fedgc.updates.sums import add_scaled, scaled


@dataclass(frozen=True, eq=False)
class Combination(Mapping[str, NDArray[Any]]):
    """``sum_k factors[k] * updates[k]``, worked out array by array when it is asked for.

    Attributes
    ----------
    factors : sequence of float
        The factors, at least one.
    updates : sequence of (mapping of str to ndarray)
        Updates with arrays of the same names and shapes. Of each an array is read at a time.

    Examples
    --------
    >>> import numpy as np
    >>> Combination([2.0, -1.0], [{"w": np.array([3.0])}, {"w": np.array([1.0])}])["w"]
    array([5.])
    """

    factors: Sequence[float]
    updates: Sequence[Arrays]

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Return the array of that name."""
        total = scaled({name: self.updates[0][name]}, self.factors[0])
        for factor, update in zip(self.factors[1:], self.updates[1:], strict=True):
            if factor != 0.0:
                add_scaled(total, factor, update)
        return total[name]

    def __iter__(self) -> Iterator[str]:
        """Yield the names."""
        return iter(self.updates[0])

    def __len__(self) -> int:
        """Return the number of arrays."""
        return len(self.updates[0])
