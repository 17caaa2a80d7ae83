"""Sums of updates, and how long these are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedgc.updates.number_types import Arrays, Update, sum_dtype
from fedgc.updates.scaled_difference import ScaledDifference
from fedgc.updates.weighted_sum import add_weighted, squared_length


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


def squared_norm(update: Arrays) -> float:
    """Return the squared Euclidean norm over all arrays, summed in float64."""
    return sum(float(np.sum(np.square(value, dtype=np.float64))) for value in update.values())
