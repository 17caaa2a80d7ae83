"""Encode: the client's half of the code, a weighted sum of the updates of its shards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Flower's records and torch's state dicts hold arrays of any number type.
Arrays = Mapping[str, NDArray[Any]]
Update = dict[str, NDArray[np.float64]]


def zero_update(arrays: Arrays) -> Update:
    """Return an all-zero update with the names and shapes of `arrays`.

    Updates are kept in float64 whatever the model's dtype: they are multiplied by numbers of examples and by weights,
    which half precision does not survive, and differences of counters and flags need fractions.
    """
    return {name: np.zeros(value.shape) for name, value in arrays.items()}


def add_scaled(total: Update, scale: float, update: Arrays) -> None:
    """Add ``scale * update`` to `total` in place."""
    for name, value in update.items():
        total[name] += np.multiply(value, scale, dtype=np.float64)


def difference(new: Arrays, old: Arrays) -> Update:
    """Return ``new - old`` array by array, in float64."""
    return {name: np.subtract(new[name], value, dtype=np.float64) for name, value in old.items()}


def scaled(update: Arrays, scale: float) -> Update:
    """Return ``scale * update`` in float64."""
    return {name: np.multiply(value, scale, dtype=np.float64) for name, value in update.items()}


def all_finite(arrays: Arrays) -> bool:
    """Return whether no array holds NaN or infinity."""
    return all(bool(np.isfinite(value).all()) for value in arrays.values())


def apply_update(arrays: Arrays, update: Arrays) -> dict[str, NDArray[Any]]:
    """Return ``arrays + update`` in the dtypes of `arrays`, integers rounded to the nearest."""
    result: dict[str, NDArray[Any]] = {}
    for name, value in arrays.items():
        moved = np.add(value, update[name], dtype=np.float64)
        with np.errstate(over="ignore"):  # an overflow is for the caller to find
            whole = np.issubdtype(value.dtype, np.floating)
            # Sums of 0-d arrays are scalars, which Flower does not take for arrays.
            result[name] = np.asarray(moved if whole else np.rint(moved)).astype(value.dtype)
    return result


def squared_norm(update: Arrays) -> float:
    """Return the squared Euclidean norm over all arrays, summed in float64."""
    return sum(float(np.sum(np.square(value, dtype=np.float64))) for value in update.values())
