"""Hierarchical coded computation: layers of equal work per client, each coded for another number of clients."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedgc.validation import check_integer, check_positive

Vector = NDArray[np.float64]

#: Candidates for the common end of the layers that are tried at a time.
_AT_ONCE = 20_000


def hierarchical_split(order_times: ArrayLike, n_coordinates: float, n_layers: int) -> Vector:
    """Return the split that is optimal for MDS-coded linear computation in layers.

    Parameters
    ----------
    order_times : array_like, shape (n_clients,)
        Mean times of the fastest to the slowest client, rising from above zero.
    n_coordinates : float
        Number of coordinates, L.
    n_layers : int
        Number of layers, r.

    Returns
    -------
    ndarray, shape (n_clients,)
        Coordinates with n = 1, ..., N copies, not whole: those of the layers that any N + 1 - n clients recover.

    Raises
    ------
    ValueError
        If the times do not rise from above zero, or a number is out of range.

    Notes
    -----
    Layer l = 1, ..., r of the job is divided into k_l equal parts and MDS-coded to N; with ``K = sum_l k_l`` parts in
    all, each client does one part, 1 / K of the job, per layer. Layer l is recovered when k_l clients are done with
    l parts, after ``l T_(k_l) / K``. For a common end m the best is the largest k_l with ``l t_(k_l) <= m``, and m is
    chosen for the least ``m / K`` among all ``l t_k``, of which there are r N; every layer must be recovered by
    someone, so m is at least ``r t_1``.

    Layer l holds the share ``k_l / K`` of the coordinates. What differs in gradient coding is the work: a part takes
    ``1 / k`` of the layer's uncoded work there and ``(N + 1 - k) / N`` here. The split is taken as it is.

    References
    ----------
    N. Ferdinand, S. C. Draper, "Hierarchical Coded Computation", ISIT 2018.

    Examples
    --------
    Three layers, from all three clients, two and one:

    >>> hierarchical_split([1.0, 1.5, 3.0], 12.0, 3).tolist()
    [6.0, 4.0, 2.0]
    """
    t = np.array(order_times, dtype=np.float64)
    if t.ndim != 1 or t.size == 0 or not (np.isfinite(t).all() and t[0] > 0.0 and (np.diff(t) >= 0.0).all()):
        raise ValueError(f"order_times must be finite, above 0, and rise from the fastest on; got {t.tolist()}")
    total = check_positive("n_coordinates", n_coordinates)
    r = check_integer("n_layers", n_layers, low=1)
    ends = np.unique(np.arange(1, r + 1)[:, None] * t)
    ends = ends[ends >= r * t[0] * (1.0 - 1e-12)]
    parts = np.concatenate(
        [_layers_by_client(some, t, r).sum(axis=1) for some in np.split(ends, range(_AT_ONCE, ends.size, _AT_ONCE))]
    )
    # With k clients or more are recovered as many layers as client k is done with by the end.
    at_least = _layers_by_client(ends[[np.argmin(ends / parts)]], t, r)[0]
    layers = at_least - np.append(at_least[1:], 0)
    coordinates = np.arange(1, t.size + 1) * layers
    return np.asarray(coordinates[::-1] * (total / coordinates.sum()))


def _layers_by_client(ends: Vector, t: Vector, n_layers: int) -> NDArray[np.int64]:
    """Return how many layers the k-th fastest client is done with by each end, (n_ends, n_clients)."""
    # The tolerance keeps an end that is l t_k from falling short of layer l.
    return np.minimum(np.floor(ends[:, None] / t * (1.0 + 1e-12)), n_layers).astype(np.int64)
