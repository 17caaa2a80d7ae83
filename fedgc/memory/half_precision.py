"""Arrays in a smaller floating type, scaled so that they neither overflow nor vanish."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def rounded(array: NDArray[Any], dtype: np.dtype[Any]) -> tuple[NDArray[Any], float]:
    """Return an array in a smaller floating type, and the power of two that it is to be multiplied with.

    Parameters
    ----------
    array : ndarray
        The array, of a floating type.
    dtype : dtype
        The smaller type.

    Returns
    -------
    values : ndarray
        ``array / factor`` in the smaller type. Its largest entry is near the end of the type's range, whatever the size
        of the array's. It is always finite: NaN becomes zero, what is infinite, or would be after rounding, the largest
        number.
    factor : float
        The power of two, by which dividing and multiplying are exact.

    Examples
    --------
    >>> values, factor = rounded(np.array([1e30, 3e29, 0.0], dtype=np.float32), np.dtype(np.float16))
    >>> values.dtype.name, bool(np.isfinite(values).all())
    ('float16', True)
    >>> [f"{value:.3g}" for value in restored(values, factor, np.dtype(np.float32))]
    ['1e+30', '3e+29', '0']
    """
    kind, small = np.finfo(array.dtype), np.finfo(dtype)
    largest = max(float(array.max(initial=0.0)), -float(array.min(initial=0.0)))
    exponent = int(np.frexp(largest)[1]) if np.isfinite(largest) else kind.maxexp
    if exponent == kind.maxexp:
        # The largest number that can be told in the smaller type: rounded up, it would be infinite in the larger one.
        most = np.ldexp(array.dtype.type(1.0 - 0.5**small.nmant / 2.0), exponent)
        array = np.clip(np.nan_to_num(array, nan=0.0, posinf=most, neginf=-most), -most, most)
    factor = 2.0 ** max(exponent - (small.maxexp - 1), kind.minexp)
    return np.multiply(array, array.dtype.type(1.0 / factor)).astype(dtype), factor


def restored(values: NDArray[Any], factor: float, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return ``values * factor`` in a larger floating type."""
    return np.asarray(np.multiply(values, dtype.type(factor), dtype=dtype))
