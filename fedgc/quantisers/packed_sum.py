"""The sum of a reply as bytes: its arrays rounded and packed as one vector, and read one by one when asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedgc.quantisers.base import Quantiser
from fedgc.updates import Arrays, is_statistic, sum_dtype


def rounded_names(arrays: Arrays) -> list[str]:
    """Return the names of the arrays that are rounded, in order: those of floats that are no running statistic.

    Counters would lose what they count, and a variance that is rounded may come to be negative.

    Examples
    --------
    >>> rounded_names({"w": np.zeros(2), "b": np.zeros(1), "steps": np.array(3), "bn.running_var": np.ones(1)})
    ['b', 'w']
    """
    return sorted(name for name, value in arrays.items() if value.dtype.kind == "f" and not is_statistic(name))


def pack_arrays(update: Arrays, names: list[str], quantiser: Quantiser, seed: int) -> tuple[NDArray[np.uint8], float]:
    """Return these arrays as bytes, and the variance factor of all of them together.

    Parameters
    ----------
    update : mapping of str to ndarray
        The arrays.
    names : list of str
        Those that are packed, in this order.
    quantiser : Quantiser
        What rounds them, as one vector: buckets and rotations run on from one to the next, and norms are those of all.
    seed : int
        Whom it is known to can read the bytes, and who rounds the same by it gets the same.

    Raises
    ------
    ValueError
        If an entry is not finite, or beyond single precision.

    Examples
    --------
    >>> from fedgc.quantisers import BucketedNorm
    >>> data, factor = pack_arrays({"w": np.array([[1.0, -1.0]])}, ["w"], BucketedNorm(bits=8), seed=1)
    >>> data.size, factor
    (22, 0.0)
    """
    parts = [np.zeros(0)]
    for name in names:
        parts.append(np.asarray(update[name], dtype=np.float64).reshape(-1))
        if not np.isfinite(parts[-1]).all():
            raise ValueError(f"array {name!r} cannot be rounded: entries must be finite; got NaN or infinity")
    vector = np.concatenate(parts)
    parts.clear()
    try:
        data, variance = quantiser.quantised(vector, np.random.default_rng([seed]), seed)
    except ValueError as error:
        raise ValueError(f"arrays cannot be rounded: {error}") from None
    energy = float(vector @ vector)
    return np.frombuffer(data, np.uint8), variance / energy if energy > 0.0 else 0.0


def pack_exact(arrays: Arrays) -> NDArray[np.uint8]:
    """Return arrays that are not rounded as bytes, one after another in the order of their names.

    In a Flower record each would take a header of 128 bytes, which is as much as a few dozen statistics.

    Examples
    --------
    >>> pack_exact({"steps": np.array(3.0), "mean": np.ones(2, np.float32)}).size
    16
    """
    parts = [np.ascontiguousarray(arrays[name]) for name in sorted(arrays)]
    return np.frombuffer(
        b"".join(part.astype(_on_the_wire(part.dtype), copy=False).tobytes() for part in parts), np.uint8
    )


def unpack_exact(data: NDArray[np.uint8], like: Arrays) -> dict[str, NDArray[Any]]:
    """Return the arrays of :func:`pack_exact` as views of the bytes.

    Parameters
    ----------
    data : ndarray of uint8, shape (n_bytes,)
        The bytes, from anyone.
    like : mapping of str to ndarray
        The global arrays of these names, for shapes and types.

    Raises
    ------
    ValueError
        If the bytes are not as many.

    Examples
    --------
    >>> like = {"steps": np.array(0), "mean": np.zeros(2, np.float32)}
    >>> unpack_exact(pack_exact({"steps": np.array(3.5), "mean": np.ones(2, np.float32)}), like)["steps"].item()
    3.5
    """
    kinds = {name: _on_the_wire(like[name].dtype) for name in sorted(like)}
    ends = [0, *accumulate(like[name].size * kind.itemsize for name, kind in kinds.items())]
    if data.dtype != np.uint8 or data.shape != (ends[-1],):
        got = f"{data.dtype} of shape {data.shape}"
        raise ValueError(f"arrays that are not rounded must be uint8 of shape ({ends[-1]},); got {got}")
    wire = np.ascontiguousarray(data).data
    return {
        name: np.frombuffer(wire[start:stop], kind).reshape(like[name].shape)
        for (name, kind), start, stop in zip(kinds.items(), ends[:-1], ends[1:], strict=True)
    }


def _on_the_wire(kind: np.dtype[Any]) -> np.dtype[Any]:
    """Return the type in which arrays are sent that are not rounded: means of whole numbers have fractions."""
    return (kind if kind.kind == "f" else np.dtype(np.float64)).newbyteorder("<")


class PackedSum(Mapping[str, NDArray[Any]]):
    """What :func:`pack_arrays` packed, times a number, beside arrays that were sent as they are.

    Each array is read when it is asked for, and not kept: the bytes take less room.

    Parameters
    ----------
    data : ndarray of uint8, shape (n_bytes,)
        The bytes, from anyone.
    arrays : mapping of str to ndarray
        The global arrays; only names, shapes and types are used.
    exact : mapping of str to ndarray
        The arrays that are not rounded, times the number already.
    quantiser : Quantiser
        What rounded the others.
    seed : int
        The seed of :func:`pack_arrays`.
    scale : float
        The number.

    Raises
    ------
    ValueError
        If the bytes are not those of such arrays.

    Examples
    --------
    >>> from fedgc.quantisers import BucketedNorm
    >>> quantiser, update = BucketedNorm(bits=8), {"w": np.array([[1.0, -1.0]])}
    >>> data, _ = pack_arrays(update, ["w"], quantiser, seed=1)
    >>> PackedSum(data, update, {}, quantiser, seed=1, scale=10.0)["w"]
    array([[ 10., -10.]])
    """

    def __init__(
        self, data: NDArray[np.uint8], arrays: Arrays, exact: Arrays, quantiser: Quantiser, *, seed: int, scale: float
    ) -> None:
        names = rounded_names(arrays)
        ends = [0, *accumulate(arrays[name].size for name in names)]
        wanted = (quantiser.n_bytes(ends[-1]),)
        if data.dtype != np.uint8 or data.shape != wanted:
            got = f"{data.dtype} of shape {data.shape}"
            raise ValueError(f"packed arrays of {quantiser.bits} bits must be uint8 of shape {wanted}; got {got}")
        self._arrays, self._exact, self._quantiser, self._seed, self._scale = arrays, exact, quantiser, seed, scale
        self._wire, self._size = np.ascontiguousarray(data).data, ends[-1]
        self._at = {name: (ends[at], ends[at + 1]) for at, name in enumerate(names)}
        try:
            quantiser.check(self._wire, self._size)
        except ValueError as error:
            raise ValueError(f"packed arrays cannot be read: {error}") from None

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Return the array of that name."""
        if name not in self._at:
            return self._exact[name]
        like = self._arrays[name]
        values = self._quantiser.dequantise_part(self._wire, self._size, *self._at[name], self._seed)
        with np.errstate(over="ignore", invalid="ignore"):
            values *= self._scale
            return values.astype(sum_dtype(like.dtype), copy=False).reshape(like.shape)

    def __iter__(self) -> Iterator[str]:
        """Yield the names."""
        return iter(self._arrays)

    def __len__(self) -> int:
        """Return the number of arrays."""
        return len(self._arrays)
