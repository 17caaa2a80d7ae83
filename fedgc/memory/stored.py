"""An update as a store holds it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedgc.memory.half_precision import restored


@dataclass(frozen=True, eq=False)
class StoredArray:
    """An array as it is stored.

    Attributes
    ----------
    values : callable
        Returns what is stored, not to be written to.
    factor : float
        What it is to be multiplied with.
    dtype : dtype
        The type of the array.
    """

    values: Callable[[], NDArray[Any]]
    factor: float
    dtype: np.dtype[Any]

    def value(self) -> NDArray[Any]:
        """Return the array."""
        values = self.values()
        return values if values.dtype == self.dtype else restored(values, self.factor, self.dtype)


@dataclass(frozen=True, eq=False)
class StoredUpdate(Mapping[str, NDArray[Any]]):
    """An update that a store holds; each array is read when it is asked for, always with the same values.

    Attributes
    ----------
    arrays : mapping of str to StoredArray
        The arrays.
    """

    arrays: Mapping[str, StoredArray]

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Return the array of that name."""
        return self.arrays[name].value()

    def __iter__(self) -> Iterator[str]:
        """Yield the names."""
        return iter(self.arrays)

    def __len__(self) -> int:
        """Return the number of arrays."""
        return len(self.arrays)
