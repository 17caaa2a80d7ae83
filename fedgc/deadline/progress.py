"""How much clients are expected to do by a deadline."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedgc.deadline.outlook import Timing


@runtime_checkable
class TimingOfProgress(Protocol):
    """A :class:`Timing` whose chances are kept away from zero, and that tells of the mean progress without that."""

    def mean_progress(self, deadline: float, lengths: ArrayLike) -> NDArray[np.float64]:
        """Return how many shards of its work list each client is expected to have done by then, (n_clients,)."""


def mean_progress(timing: Timing, deadline: float, lengths: ArrayLike) -> NDArray[np.float64]:
    """Return how many shards of its work list each client is expected to have done by the deadline.

    Parameters
    ----------
    timing : Timing
        What is known of the clients.
    deadline : float
        Seconds.
    lengths : array_like of int, shape (n_clients,)
        Length of each client's list.

    Returns
    -------
    ndarray, shape (n_clients,)
        The sums over k of the probabilities to have done at least k shards.
    """
    if isinstance(timing, TimingOfProgress):
        return timing.mean_progress(deadline, lengths)
    return sum_on_lists(timing.partial_reach(deadline, lengths), lengths)


def sum_on_lists(reach: NDArray[np.float64], lengths: ArrayLike) -> NDArray[np.float64]:
    """Return the sum over k from 1 to each client's length of ``reach[client, k]``, (n_clients,).

    Examples
    --------
    >>> sum_on_lists(np.array([[1.0, 0.5, 0.25], [1.0, 0.5, 0.25]]), [1, 2]).tolist()
    [0.5, 0.75]
    """
    listed = np.arange(1, reach.shape[1]) <= np.asarray(lengths)[:, None]
    return np.asarray((listed * reach[:, 1:]).sum(axis=1))
