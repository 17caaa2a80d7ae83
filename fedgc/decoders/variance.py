"""The variance of a decoded update, entry by entry, estimated from the coded updates that came."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedgc.arrivals import ArrivalModel, as_arrival_model
from fedgc.decoders.base import CalibratedDecoder


def variance_weights(decoder: CalibratedDecoder, arrivals: ArrivalModel | ArrayLike) -> NDArray[np.float64]:
    """Return how often the square of each coded update counts in the estimated variance of the decoded one.

    Parameters
    ----------
    decoder : CalibratedDecoder
        A decoder whose weights are known before anything has come: settled ones, or those of whole blocks whose updates
        are taken to have nothing in common.
    arrivals : ArrivalModel, or array_like of shape (n_clients,)
        What it was calibrated for: a model, or the probabilities that each client misses the deadline.

    Returns
    -------
    ndarray, shape (n_rows,)
        ``k_i = w_i^2 (1 - P_i)``, for copies of each other that of whichever comes first: the others do not count.

    Raises
    ------
    ValueError
        If weights depend on what else comes, or different coded updates do not arrive independently of each other: a
        sum of squares cannot tell the products of two updates, of which the variance is then made too.

    Notes
    -----
    Of independent coded updates u_i, of which one comes with probability P_i and then counts w_i times, the decoded sum
    d has ``Var(d_j) = sum_i w_i^2 P_i (1 - P_i) u_ij^2``. Of these terms the arrived ones are known, each with
    probability P_i, so that ``sum over arrived i of w_i^2 (1 - P_i) u_ij^2`` has that mean exactly, whatever the
    updates are (D. Horvitz, D. Thompson, J. Am. Stat. Assoc. 47, 1952). With ``w_i = 1 / P_i`` it is
    ``w_i (w_i - 1) u_ij^2``. Copies are one unit, which comes if any of them does.

    Examples
    --------
    >>> from fedgc.codes import FractionalRepetition
    >>> from fedgc.decoders import OptimalUnbiasedDecoder
    >>> from fedgc.gram import GramModel
    >>> code = FractionalRepetition([0, 0, 1], [0, 1])
    >>> decoder = OptimalUnbiasedDecoder().calibrate(code, [0.5, 0.5, 0.2], GramModel.uniform(2, 0.0))
    >>> variance_weights(decoder, [0.5, 0.5, 0.2]).round(12).tolist()  # 4/3 * 1/3 twice, 5/4 * 1/4
    [0.444444444444, 0.444444444444, 0.3125]
    """
    n_rows = decoder.code.n_rows
    model = as_arrival_model(arrivals, n_rows)
    weight, unit = np.zeros(n_rows), np.zeros(n_rows, dtype=np.intp)
    for row in range(n_rows):
        early = decoder.early_weights(row)
        if early is None or early.common != 0.0:
            raise ValueError(
                "decoder must have weights that do not depend on what else comes; "
                f"got {type(decoder).__name__}, in which those of row {row} do"
            )
        weight[row], unit[row] = early.alone, early.copy_of
    missing: dict[int, float] = defaultdict(lambda: 1.0)
    for part in model.parts():
        own = np.unique(unit[part.rows])
        if own.size > 1:
            raise ValueError(
                f"arrivals must be independent between coded updates that are no copies; got rows "
                f"{part.rows[:3].tolist()} that depend on each other"
            )
        if own.size:
            missing[int(own[0])] *= float(part.probability @ ~part.outcomes.any(axis=1))
    counts: NDArray[np.float64] = weight**2 * np.array([missing[int(one)] for one in unit])
    return counts
