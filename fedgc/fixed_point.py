"""Fixed-point numbers modulo 2^64: sums that are the same in any order, and from which masks vanish to the last bit."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedgc.updates import Arrays, Update

#: Bits at the top that no sum of honest values reaches: one that does has masks left in it.
_GUARD_BITS = 8


def largest_entry(fractional_bits: int, terms: int) -> float:
    """Return the largest absolute value of an entry of which so many may be added.

    Examples
    --------
    >>> largest_entry(fractional_bits=32, terms=64)
    131072.0
    """
    return float(2.0 ** (63 - _GUARD_BITS - fractional_bits) / max(terms, 1))


def to_fixed_point(update: Arrays, fractional_bits: int, largest: float) -> dict[str, NDArray[np.uint64]]:
    """Return ``round(2^fractional_bits * update)`` modulo 2^64, array by array.

    Parameters
    ----------
    update : mapping of str to ndarray
        Real arrays of any shape.
    fractional_bits : int
        Bits after the point: an entry is off by at most ``2^-(fractional_bits + 1)``.
    largest : float
        Largest absolute value that an entry may have.

    Raises
    ------
    ValueError
        If an entry is larger, or not a number.

    Examples
    --------
    >>> to_fixed_point({"w": np.array([0.75, -1.0])}, fractional_bits=2, largest=8.0)["w"].tolist()
    [3, 18446744073709551612]
    """
    fixed = {}
    for name, value in update.items():
        entries = np.asarray(value, dtype=np.float64)
        most = float(np.abs(entries).max(initial=0.0))
        if not most <= largest:
            raise ValueError(f"entries of array {name!r} must be at most {largest:g} in a secure sum; got {most:g}")
        fixed[name] = np.asarray(np.rint(entries * 2.0**fractional_bits)).astype(np.int64).view(np.uint64)
    return fixed


def from_fixed_point(total: Arrays, fractional_bits: int) -> Update:
    """Return the numbers that a sum stands for, in double precision.

    Examples
    --------
    >>> fixed = to_fixed_point({"w": np.array([0.75, -1.0])}, 2, largest=8.0)
    >>> from_fixed_point(fixed, 2)["w"].tolist()
    [0.75, -1.0]
    """
    return {name: np.asarray(value.view(np.int64) * 2.0**-fractional_bits) for name, value in total.items()}


def add_modulo(total: dict[str, NDArray[np.uint64]], terms: Arrays) -> None:
    """Add arrays of 64-bit numbers in place, modulo 2^64."""
    for name, term in terms.items():
        np.add(total[name], term, out=total[name])


def zero_sum(arrays: Arrays) -> dict[str, NDArray[np.uint64]]:
    """Return a sum of nothing, with the names and shapes of `arrays`."""
    return {name: np.zeros(value.shape, np.uint64) for name, value in arrays.items()}


def is_fixed_point(array: NDArray[Any], like: NDArray[Any]) -> bool:
    """Return whether an array can be added to a sum for `like`; its entries are not looked at."""
    return array.dtype == np.uint64 and array.shape == like.shape
