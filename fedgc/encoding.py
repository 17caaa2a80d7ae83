"""Encode: the client's half of the code, a weighted sum of the updates of its shards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

# Flower's records and torch's state dicts hold arrays of any number type.
Arrays = Mapping[str, NDArray[Any]]
Update = dict[str, NDArray[Any]]

#: Entries that are worked on at once: they stay in the processor's cache, and temporaries stay small.
_AT_ONCE = 1 << 16


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
    kind = np.dtype(dtype)
    return np.result_type(kind, np.float32) if np.issubdtype(kind, np.floating) else np.dtype(np.float64)


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


def zero_update(arrays: Arrays) -> Update:
    """Return an all-zero update with the names and shapes of `arrays`, in the types of :func:`sum_dtype`."""
    return {name: np.zeros(value.shape, sum_dtype(value.dtype)) for name, value in arrays.items()}


def add_scaled(total: Update, scale: float, update: Arrays) -> None:
    """Add ``scale * update`` to `total` in place. An overflow is for the caller to find."""
    if isinstance(update, ScaledDifference):
        for name, value in total.items():
            _add(value, update.scale * scale, update.new[name], update.old[name])
        return
    for name, value in update.items():
        _add(total[name], scale, value, None)


def _add(total: NDArray[Any], scale: float, value: NDArray[Any], minus: NDArray[Any] | None) -> None:
    flat, new = total.reshape(-1), np.asarray(value).reshape(-1)
    old = None if minus is None else minus.reshape(-1)
    factor = total.dtype.type(scale)
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, flat.size, _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            if old is None:
                flat[part] += np.multiply(new[part], factor, dtype=total.dtype)
            else:
                change = np.subtract(new[part], old[part], dtype=total.dtype)
                change *= factor
                flat[part] += change
    if not np.shares_memory(flat, total):  # a total that is not contiguous was copied
        total[...] = flat.reshape(total.shape)


def difference(new: Arrays, old: Arrays) -> Update:
    """Return ``new - old`` array by array."""
    return {name: np.asarray(np.subtract(new[name], v, dtype=sum_dtype(v.dtype))) for name, v in old.items()}


def scaled(update: Arrays, scale: float) -> Update:
    """Return ``scale * update``. An overflow is for the caller to find."""
    with np.errstate(over="ignore", invalid="ignore"):
        return {name: np.asarray(np.multiply(v, scale, dtype=sum_dtype(v.dtype))) for name, v in update.items()}


def all_finite(arrays: Arrays) -> bool:
    """Return whether no array holds NaN or infinity."""
    return all(bool(np.isfinite(value).all()) for value in arrays.values())


def apply_update(arrays: Arrays, update: Arrays) -> dict[str, NDArray[Any]]:
    """Return ``arrays + update`` in the dtypes of `arrays`, whole numbers rounded and kept in the dtype's range."""
    result = {}
    for name, value in arrays.items():
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
    with np.errstate(over="ignore"):  # an overflow is for the caller to find
        return value.astype(dtype)


def squared_norm(update: Arrays) -> float:
    """Return the squared Euclidean norm over all arrays, summed in float64."""
    return sum(float(np.sum(np.square(value, dtype=np.float64))) for value in update.values())
