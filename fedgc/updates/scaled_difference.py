"""The difference of two models times a number, not written down: what a reply's coded update is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedgc.updates.number_types import Arrays, sum_dtype


@dataclass(frozen=True, eq=False)
class ScaledDifference(Mapping[str, NDArray[Any]]):
    """``scale * (new - old)``, worked out array by array when it is asked for.

    A reply's coded update is this, of the arrays that came and the global ones: to write it down would take another
    model.

    Attributes
    ----------
    new, old : mapping of str to ndarray
        Arrays of the same names and shapes.
    scale : float
        The factor.

    Examples
    --------
    >>> ScaledDifference({"w": np.array([3.0])}, {"w": np.array([1.0])}, 10.0)["w"]
    array([20.])
    """

    new: Arrays
    old: Arrays
    scale: float

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Return the array of that name."""
        kind = sum_dtype(self.old[name].dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            change = np.asarray(np.subtract(self.new[name], self.old[name], dtype=kind))
            change *= kind.type(self.scale)
        return change

    def __iter__(self) -> Iterator[str]:
        """Yield the names."""
        return iter(self.old)

    def __len__(self) -> int:
        """Return the number of arrays."""
        return len(self.old)
