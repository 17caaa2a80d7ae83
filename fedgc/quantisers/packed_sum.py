"""The sum of a reply as bytes: its arrays rounded and packed one after another, and read one by one when asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
        What rounds them, each by itself.
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
    rng = np.random.default_rng([seed])
    parts, variance, energy = [b""], 0.0, 0.0
    for name in names:
        vector = np.asarray(update[name], dtype=np.float64).reshape(-1)
        try:
            data, added = quantiser.quantised(vector, rng, seed)
        except ValueError as error:
            raise ValueError(f"array {name!r} cannot be rounded: {error}") from None
        parts.append(data)
        variance += added
        energy += float(vector @ vector)
    return np.frombuffer(b"".join(parts), np.uint8), variance / energy if energy > 0.0 else 0.0


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
        ends = np.cumsum([0, *(quantiser.n_bytes(arrays[name].size) for name in names)])
        if data.dtype != np.uint8 or data.shape != (int(ends[-1]),):
            got = f"{data.dtype} of shape {data.shape}"
            raise ValueError(f"packed arrays of {quantiser.bits} bits must be uint8 of shape ({ends[-1]},); got {got}")
        self._arrays, self._exact, self._quantiser, self._seed, self._scale = arrays, exact, quantiser, seed, scale
        wire = np.ascontiguousarray(data).data
        self._wire = {name: wire[ends[at] : ends[at + 1]] for at, name in enumerate(names)}
        for name, part in self._wire.items():
            try:
                quantiser.check(part, arrays[name].size)
            except ValueError as error:
                raise ValueError(f"array {name!r} cannot be read: {error}") from None

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Return the array of that name."""
        if name not in self._wire:
            return self._exact[name]
        like = self._arrays[name]
        values = self._quantiser.dequantise(self._wire[name], like.size, self._seed)
        with np.errstate(over="ignore", invalid="ignore"):
            values *= self._scale
            return values.astype(sum_dtype(like.dtype), copy=False).reshape(like.shape)

    def __iter__(self) -> Iterator[str]:
        """Yield the names."""
        return iter(self._arrays)

    def __len__(self) -> int:
        """Return the number of arrays."""
        return len(self._arrays)
