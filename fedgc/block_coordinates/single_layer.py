"""One redundancy for all coordinates: the gradient codes that know no partial work."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedgc.block_coordinates.runtime import runtime
from fedgc.validation import check_integer, check_positive

Vector = NDArray[np.float64]


def single_layer(n_clients: int, n_coordinates: float, n_stragglers: int) -> Vector:
    """Return the split in which every coordinate tolerates `n_stragglers`; with none the gradient is not coded.

    Raises
    ------
    ValueError
        If there are not more clients than stragglers, or there is no coordinate.

    References
    ----------
    R. Tandon, Q. Lei, A. G. Dimakis, N. Karampatziakis, "Gradient Coding: Avoiding Stragglers in Distributed
    Learning", ICML 2017.

    Examples
    --------
    >>> single_layer(3, 12.0, 1).tolist()
    [0.0, 12.0, 0.0]
    """
    n = check_integer("n_clients", n_clients, low=1)
    split = np.zeros(n)
    split[check_integer("n_stragglers", n_stragglers, low=0, high=n - 1)] = check_positive(
        "n_coordinates", n_coordinates
    )
    return split


def best_single_layer(order_means: ArrayLike, n_coordinates: float) -> Vector:
    """Return the single layer of least mean runtime, ``min_n n E[T_(N+1-n)] L``.

    Parameters
    ----------
    order_means : array_like, shape (n_clients,)
        Mean times of the fastest to the slowest client.
    n_coordinates : float
        Number of coordinates, L.

    Examples
    --------
    >>> best_single_layer([1.0, 2.0, 9.0], 12.0).tolist()
    [0.0, 0.0, 12.0]
    """
    n = np.size(order_means)
    layers = [single_layer(n, n_coordinates, stragglers) for stragglers in range(n)]
    return min(layers, key=lambda split: runtime(split, order_means).item())


def two_layers(n_clients: int, n_coordinates: float, n_stragglers: int, slowdown: float) -> Vector:
    """Return the split of gradient coding for partial stragglers that are at most `slowdown` times as slow as others.

    Parameters
    ----------
    n_clients : int
        Number of clients.
    n_coordinates : float
        Number of coordinates, L.
    n_stragglers : int
        Number of stragglers, s, at least 1.
    slowdown : float
        How many times as long a straggler takes, alpha, at least 1.

    Returns
    -------
    ndarray, shape (n_clients,)
        ``x_1 : x_(s+1) = s + 1 : alpha - 1``, so that a straggler is done with what is not coded, ``alpha x_1``, when
        the others are done with all, ``x_1 + (s + 1) x_(s+1)``.

    Raises
    ------
    ValueError
        If a number is out of range.

    Notes
    -----
    As published the two layers are two sets of shards. Here they are two sets of coordinates, with the same work.

    References
    ----------
    R. Tandon, Q. Lei, A. G. Dimakis, N. Karampatziakis, ICML 2017, section 5, partial stragglers.

    Examples
    --------
    >>> two_layers(3, 12.0, 1, slowdown=3.0).tolist()
    [6.0, 6.0, 0.0]
    """
    n = check_integer("n_clients", n_clients, low=2)
    s = check_integer("n_stragglers", n_stragglers, low=1, high=n - 1)
    if not 1.0 <= slowdown < np.inf:
        raise ValueError(f"slowdown must be a finite number of at least 1; got {slowdown!r}")
    split = np.zeros(n)
    split[[0, s]] = s + 1.0, slowdown - 1.0
    return np.asarray(split * (check_positive("n_coordinates", n_coordinates) / split.sum()))
