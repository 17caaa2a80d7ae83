"""Encode: the client's half of the code, a weighted sum of the updates of its shards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Flower's records and torch's state dicts hold arrays of any number type.
Arrays = Mapping[str, NDArray[Any]]
Update = dict[str, NDArray[np.floating]]


def update_dtype(dtype: np.dtype[np.generic]) -> np.dtype[np.floating]:
    """Return the dtype in which an update of an array of `dtype` is kept: its own if floating, else float64.

    Differences of integers (counters in batch normalisation, say) are averaged too, so they need fractions.
    """
    return dtype if np.issubdtype(dtype, np.floating) else np.dtype(np.float64)  # type: ignore[return-value]


def zero_update(arrays: Arrays, dtype: np.dtype[np.floating] | None = None) -> Update:
    """Return an all-zero update with the names and shapes of `arrays`."""
    return {name: np.zeros(value.shape, dtype or update_dtype(value.dtype)) for name, value in arrays.items()}


def add_scaled(total: Update, scale: float, update: Arrays) -> None:
    """Add ``scale * update`` to `total` in place."""
    for name, value in update.items():
        total[name] += (scale * value).astype(total[name].dtype, copy=False)


def difference(new: Arrays, old: Arrays) -> Update:
    """Return ``new - old`` array by array."""
    return {
        name: np.subtract(new[name], value, dtype=update_dtype(value.dtype), casting="unsafe")
        for name, value in old.items()
    }


def apply_update(arrays: Arrays, update: Arrays) -> dict[str, NDArray[Any]]:
    """Return ``arrays + update`` in the dtypes of `arrays`, integers rounded to the nearest."""
    result: dict[str, NDArray[Any]] = {}
    for name, value in arrays.items():
        moved = value + update[name]
        # Sums of 0-d arrays are scalars, which Flower does not take for arrays.
        result[name] = np.asarray(moved if np.issubdtype(value.dtype, np.floating) else np.rint(moved), value.dtype)
    return result


def squared_norm(update: Arrays) -> float:
    """Return the squared Euclidean norm over all arrays, summed in float64."""
    return sum(float(np.sum(np.square(value, dtype=np.float64))) for value in update.values())
