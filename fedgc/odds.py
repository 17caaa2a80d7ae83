"""Weights in proportion to the odds of arriving, the closed form behind every fixed decoding rule."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def odds_shares(
    straggle_prob: NDArray[np.float64], group: NDArray[np.intp], n_groups: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Divide one among the members of each group in proportion to their odds of arriving.

    Parameters
    ----------
    straggle_prob : ndarray, shape (n_members,)
        Probability in [0, 1) that each member misses the deadline.
    group : ndarray of int, shape (n_members,)
        The group of each member.
    n_groups : int
        Number of groups, each with at least one member.

    Returns
    -------
    shares : ndarray, shape (n_members,)
        ``a_i = (1 / delta_i) / sum_l (1 / delta_l)`` over i's group, with ``delta_i = p_i / (1 - p_i)``. Members that
        never straggle share the whole evenly.
    variance : ndarray, shape (n_groups,)
        ``1 / sum_l (1 / delta_l)``, the least of ``sum_i delta_i a_i^2`` over shares that sum to one.

    Examples
    --------
    >>> import numpy as np
    >>> odds_shares(np.array([0.5, 0.75]), np.array([0, 0]), 1)
    (array([0.75, 0.25]), array([0.75]))
    """
    delta = straggle_prob / (1.0 - straggle_prob)
    least = np.full(n_groups, np.inf)
    np.minimum.at(least, group, delta)
    # Relative to the group's most reliable member nothing overflows, even where 1 / delta would.
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.where(least[group] > 0.0, least[group] / delta, delta == 0.0)
    total = np.bincount(group, relative, n_groups)
    return relative / total[group], least / total
