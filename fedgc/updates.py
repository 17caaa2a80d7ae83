"""Updates: differences of models and weighted sums of them, what clients encode and the server decodes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fedgc.weighted_sum import add_weighted, squared_length

# Flower's records and torch's state dicts hold arrays of any number type.
Arrays = Mapping[str, NDArray[Any]]
Update = dict[str, NDArray[Any]]

#: Arrays that are measured, not trained.
_STATISTICS = {"running_mean", "running_var", "num_batches_tracked", "moving_mean", "moving_variance"}


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


def zero_update(arrays: Arrays) -> Update:
    """Return an all-zero update with the names and shapes of `arrays`, in the types of :func:`sum_dtype`."""
    return {name: np.zeros(value.shape, sum_dtype(value.dtype)) for name, value in arrays.items()}


def add_scaled(total: Update, scale: float, update: Arrays) -> None:
    """Add ``scale * update`` to `total` in place. An overflow is for the caller to find."""
    add_combination([total], np.array([[scale]]), [update])


def add_combination(totals: Sequence[Update], weights: NDArray[np.float64], updates: Sequence[Arrays]) -> None:
    """Add ``sum_k weights[i, k] * updates[k]`` to ``totals[i]`` in place, for each i, reading each update once.

    Parameters
    ----------
    totals : sequence of (dict of str to ndarray)
        The sums.
    weights : ndarray, shape (n_totals, n_updates)
        The weights.
    updates : sequence of (mapping of str to ndarray)
        What is summed.
    """
    pairs = [(u.new, u.old, u.scale) if isinstance(u, ScaledDifference) else (u, None, 1.0) for u in updates]
    factors = weights * np.array([scale for _, _, scale in pairs])
    for name in totals[0] if totals else ():
        news = [np.asarray(new[name]).reshape(-1) for new, _, _ in pairs]
        olds = [None if old is None else old[name].reshape(-1) for _, old, _ in pairs]
        add_weighted([total[name].reshape(-1) for total in totals], factors, news, olds)


def difference(new: Arrays, old: Arrays) -> Update:
    """Return ``new - old`` array by array."""
    return {name: np.asarray(np.subtract(new[name], v, dtype=sum_dtype(v.dtype))) for name, v in old.items()}


def scaled(update: Arrays, scale: float) -> Update:
    """Return ``scale * update``. An overflow is for the caller to find."""
    with np.errstate(over="ignore", invalid="ignore"):
        return {name: np.asarray(np.multiply(v, scale, dtype=sum_dtype(v.dtype))) for name, v in update.items()}


def scale_in_place(update: Update, scale: float) -> None:
    """Multiply an update by a number."""
    for value in update.values():
        np.multiply(value, value.dtype.type(scale), out=value)


def all_finite(arrays: Arrays) -> bool:
    """Return whether no array holds NaN or infinity."""
    return all(bool(np.isfinite(value).all()) for value in arrays.values())


def is_shorter(update: Arrays, most: float) -> bool:
    """Return whether the arrays that an update is made of are finite, and each shorter than `most`."""
    arrived = update.new if isinstance(update, ScaledDifference) else update
    return all(bool(squared_length(value) < most**2) for value in arrived.values())


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


def average_statistics(update: Update, total_weight: float) -> Update:
    """Return the update with running statistics as a weighted mean instead of a weighted sum.

    Parameters
    ----------
    update : dict of str to ndarray
        The decoded update.
    total_weight : float
        Sum over the shards of how often each counts in it, times its share of the examples. If it is not above zero,
        the statistics stay as they are.

    Notes
    -----
    The weights of a round sum to one only on average. Along a gradient that is a longer or shorter step. A running
    variance that falls from 1 to 0.1 on every shard, with weights that sum to 1.2, would become ``1 - 1.2 x 0.9``,
    which is negative, and a network in evaluation mode would answer NaN. Divided by the sum, statistics lie between
    those of the clients as long as no weight is negative, at a bias of the order of the weights' variance. What is a
    running statistic is told by the last part of its name, as torch and Keras name them.

    Examples
    --------
    >>> average_statistics({"bn.running_var": np.array([-1.08]), "w": np.array([-1.08])}, 1.2)
    {'bn.running_var': array([-0.9]), 'w': array([-1.08])}
    """
    scale = 1.0 / total_weight if total_weight > 0.0 else 0.0
    return {
        name: scaled({name: value}, scale)[name] if name.replace("/", ".").split(".")[-1] in _STATISTICS else value
        for name, value in update.items()
    }


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


def squared_norm(update: Arrays) -> float:
    """Return the squared Euclidean norm over all arrays, summed in float64."""
    return sum(float(np.sum(np.square(value, dtype=np.float64))) for value in update.values())
