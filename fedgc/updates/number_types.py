"""Number types: in which arrays are summed, and how sums go back into the types that models have."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

# Flower's records and torch's state dicts hold arrays of any number type.
Arrays = Mapping[str, NDArray[Any]]
Update = dict[str, NDArray[Any]]


def sum_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """Return the number type in which updates of arrays of this type are summed.

    Updates are multiplied by numbers of examples and by weights, which half precision does not survive, and differences
    of counters and flags need fractions: single precision at least for floating point, double for everything else.
    Single precision is kept, since sums of models in twice their size would be what a server has least room for; what
    is summed are differences from the global model, so that its rounding is relative to the update.

    Examples
    --------
    >>> [sum_dtype(kind).name for kind in ("float16", "float32", "float64", "int64", "bool")]
    ['float32', 'float32', 'float64', 'float64', 'float64']
    """
    return _sum_dtype(np.dtype(dtype))


@cache
def _sum_dtype(kind: np.dtype[Any]) -> np.dtype[Any]:
    return np.result_type(kind, np.float32) if np.issubdtype(kind, np.floating) else np.dtype(np.float64)


def apply_update(arrays: Arrays, update: Arrays) -> dict[str, NDArray[Any]]:
    """Return ``arrays + update`` in the dtypes of `arrays`, whole numbers rounded and kept in the dtype's range."""
    result = {}
    for name, value in arrays.items():
        with np.errstate(over="ignore"):  # an overflow is for the caller to find
            moved = _in_dtype(np.add(value, update[name], dtype=sum_dtype(value.dtype)), value.dtype)
        if value.dtype.kind in "iu":
            # float64 holds integers up to 2**53: what does not move must not lose its last digits either.
            moved = np.where(np.equal(update[name], 0.0), value, moved)
        result[name] = moved
    return result


def in_dtypes(arrays: Arrays, like: Arrays) -> dict[str, NDArray[Any]]:
    """Return `arrays` in the dtypes of the arrays of the same names in `like`, whole numbers rounded.

    A mean of integers comes as float64, and numpy's scalars widen what they are multiplied with.

    Examples
    --------
    >>> in_dtypes({"steps": np.array([2.9999, 300.0])}, {"steps": np.array([0, 0], dtype=np.uint8)})
    {'steps': array([  3, 255], dtype=uint8)}
    """
    return {name: _in_dtype(value, like[name].dtype) if name in like else value for name, value in arrays.items()}


def without_rounding(arrays: Arrays) -> dict[str, NDArray[Any]]:
    """Return the arrays with whole numbers in float64, which takes any mean of them as it is."""
    return {name: value if value.dtype.kind == "f" else value.astype(np.float64) for name, value in arrays.items()}


def _in_dtype(value: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    value = np.asarray(value)  # sums of 0-d arrays are scalars, which Flower does not take for arrays
    if value.dtype == dtype:
        return value
    if dtype.kind in "biu" and value.dtype.kind == "f":
        # Weights above one may carry a counter or a flag out of range, where a cast would wrap around.
        low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
        # In float64 the largest 64-bit integers are rounded up, out of range.
        highest = np.nextafter(float(high), 0.0) if float(high) > high else float(high)
        value = np.asarray(np.clip(np.rint(value), float(low), highest))
    with np.errstate(over="ignore", invalid="ignore"):
        return value.astype(dtype)
