"""Checks at the public boundary: which parameter, what it must be, what came."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Sequence
from numbers import Integral, Real

import numpy as np
from numpy.typing import ArrayLike, NDArray


def check_integer(name: str, value: object, *, low: int, high: int | None = None) -> int:
    """Return `value` as an int within ``[low, high]``.

    Raises
    ------
    ValueError
        If `value` is not an integer or lies outside the range.

    Examples
    --------
    >>> check_integer("load", 2, low=1)
    2
    >>> check_integer("load", 9, low=1, high=4)
    Traceback (most recent call last):
    ...
    ValueError: load must be an integer from 1 to 4; got 9
    """
    # Plain numbers first, here and below: to ask an abstract class takes ten times as long.
    number = int(value) if isinstance(value, (int, Integral)) and not isinstance(value, bool) else None
    if number is None or number < low or (high is not None and number > high):
        limits = f"from {low} to {high}" if high is not None else f"of at least {low}"
        raise ValueError(f"{name} must be an integer {limits}; got {value!r}")
    return number


def check_indices(name: str, value: ArrayLike) -> NDArray[np.intp]:
    """Return `value` as a vector of indices, or raise ValueError unless it holds integers of at least 0."""
    given = np.asarray(value)
    if given.ndim != 1 or (given.size and not np.issubdtype(given.dtype, np.integer)) or (given < 0).any():
        raise ValueError(f"{name} must be integers of at least 0, in one dimension; got {given.tolist()}")
    return given.astype(np.intp)


def check_positive(name: str, value: object) -> float:
    """Return `value` as a finite float above zero, or raise ValueError."""
    if isinstance(value, bool) or not isinstance(value, (float, int, Real)):
        raise ValueError(f"{name} must be a finite number above 0; got {value!r}")
    # Compared as it is: an integer may be too large for a float. And negated, since nothing is true of NaN.
    if value <= 0 or not value <= sys.float_info.max:
        raise ValueError(f"{name} must be a finite number above 0; got {value!r}")
    return float(value)


def check_within(name: str, value: float, *, shortest: float = 0.0, longest: float) -> float:
    """Return seconds that lie between these bounds, or raise ValueError.

    Examples
    --------
    >>> check_within("initial", 30.0, longest=3.0)
    Traceback (most recent call last):
    ...
    ValueError: initial must be at most longest = 3; got 30
    """
    if value > longest:
        raise ValueError(f"{name} must be at most longest = {longest:g}; got {value:g}")
    if value < shortest:
        raise ValueError(f"{name} must be at least shortest = {shortest:g}; got {value:g}")
    return value


def check_vector(
    name: str,
    value: ArrayLike,
    *,
    length: int,
    low: float = -np.inf,
    high: float = np.inf,
    high_open: bool = False,
    who: str = "entry",
) -> NDArray[np.float64]:
    """Return `value` as a float vector of `length` finite entries in ``[low, high]`` (or ``[low, high)``).

    Raises
    ------
    ValueError
        If the length differs or an entry lies outside the range; the message names the first one.

    Examples
    --------
    >>> check_vector("straggle_prob", [0.1, 1.2], length=2, low=0, high=1, high_open=True, who="client")
    Traceback (most recent call last):
    ...
    ValueError: straggle_prob must lie in [0, 1); got 1.2 for client 1
    """
    vector = np.array(value, dtype=np.float64)
    if vector.shape != (length,):
        raise ValueError(f"{name} must have shape ({length},); got shape {vector.shape}")
    good = np.isfinite(vector) & (vector >= low) & ((vector < high) if high_open else (vector <= high))
    if not good.all():
        first = int(np.argmin(good))
        interval = f"[{low:g}, {high:g}{')' if high_open or not np.isfinite(high) else ']'}"
        raise ValueError(f"{name} must lie in {interval}; got {vector[first]:g} for {who} {first}")
    vector.setflags(write=False)
    return vector


def check_straggle_prob(value: ArrayLike, n_clients: int) -> NDArray[np.float64]:
    """Return the probabilities to miss the deadline as a vector in ``[0, 1)``, one per client.

    One is excluded: a client that never arrives leaves no unbiased decoding weights for what only it holds.
    """
    return check_vector("straggle_prob", value, length=n_clients, low=0.0, high=1.0, high_open=True, who="client")


def check_variance_factor(value: ArrayLike, n_clients: int) -> NDArray[np.float64]:
    """Return the variance factors of quantised updates, one per client; infinite for those who send nothing.

    Raises
    ------
    ValueError
        If they are not one number of at least 0, or one per client, or all are infinite.

    Examples
    --------
    >>> check_variance_factor(0.5, 2).tolist()
    [0.5, 0.5]
    """
    given = np.asarray(value, dtype=np.float64)
    factor = np.full(n_clients, given) if given.ndim == 0 else given
    if factor.shape != (n_clients,):
        raise ValueError(f"variance_factor must have shape ({n_clients},); got shape {factor.shape}")
    if not (factor >= 0.0).all():
        first = int(np.argmin(factor >= 0.0))
        raise ValueError(f"variance_factor must be at least 0; got {factor[first]:g} for client {first}")
    if np.isinf(factor).all():
        raise ValueError("variance_factor must be finite for some client; got infinity for all")
    return factor


def check_arrived(value: ArrayLike, n_clients: int) -> NDArray[np.bool_]:
    """Return who arrived as a boolean vector, one entry per client."""
    arrived = np.asarray(value)
    if arrived.shape != (n_clients,) or arrived.dtype != np.bool_:
        raise ValueError(
            f"arrived must be a boolean vector of shape ({n_clients},); got {arrived.dtype} of shape {arrived.shape}"
        )
    return arrived


def one_of(name: str, value: str, allowed: Sequence[str]) -> str:
    """Return `value` if it is one of the `allowed` names, or raise ValueError that lists them."""
    if value not in allowed:
        hint = did_you_mean(value, allowed)
        raise ValueError(f"{name} must be one of {', '.join(sorted(allowed))}; got {value!r}{hint}")
    return value


def did_you_mean(value: object, allowed: Iterable[str]) -> str:
    """Return a question that names the allowed name nearest to a wrong one, nothing if none is near.

    Examples
    --------
    >>> did_you_mean("mife", ["mifa", "fedavg"]), did_you_mean("gamma", ["mifa", "fedavg"])
    (', did you mean mifa?', '')
    """
    near = difflib.get_close_matches(str(value), list(allowed), n=1)
    return f", did you mean {near[0]}?" if near else ""
