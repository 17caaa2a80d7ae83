"""Redraw: shards of a block change places in its work lists every round, so that none is always last."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedgc.codes.base import Code
from fedgc.validation import check_integer

#: Sets these draws apart from a fleet's with the same seed: those have four words, of which the last may be zero, and
#: missing words count as zeros.
_STREAM = (0, 0, 4)


def redraw_places(code: Code, *, seed: int, server_round: int) -> NDArray[np.intp]:
    """Return which shard is in the place of each shard in a round, (n_shards,).

    Parameters
    ----------
    code : Code
        The code.
    seed : int
        Seed of the run.
    server_round : int
        Number of the round. What is drawn depends on nothing else, so a run that is resumed draws the same.

    Notes
    -----
    With fixed lists the shard at the end of a list is seldom done, and counts for all the more when it is: its weight
    is one over a small probability, and the residual error ``P / (1 - P)`` of such shards is nearly all there is. If
    the shards of a block change places at random, each is done with the same probability, the mean over the places, and
    has the same weight. Since ``1 / p`` is convex that never adds to the residual error for incoherent updates of equal
    energy: ``mean of 1 / p_j >= 1 / mean of p_j``. What matters then is how many shards are done, not which, and
    deadlines may be shorter than the time for a full cover.

    Where shards of a block differ much in size and their updates point the same way, redrawing may add to the error,
    and what a decoder predicts is then a bound from above.

    The decoder stays unbiased over places and arrivals together, as it is over arrivals alone with fixed places: its
    target is one number per block, such that the mean of E[v] over the places of the block is one.

    Examples
    --------
    >>> from fedgc.codes import WorkLists
    >>> code = WorkLists([[0, 1, 2], [3, 4]], n_shards=5, interchangeable=[0, 0, 0, 1, 1])
    >>> [redraw_places(code, seed=1, server_round=t).tolist() for t in (1, 2)]
    [[2, 1, 0, 4, 3], [0, 2, 1, 4, 3]]
    """
    check_integer("seed", seed, low=0)
    check_integer("server_round", server_round, low=0)
    places = np.arange(code.n_shards)
    labels = code.interchangeable
    if labels is None:
        return places
    luck = np.random.default_rng([seed, server_round, *_STREAM]).random(code.n_shards)
    places[np.argsort(labels, kind="stable")] = np.lexsort((luck, labels))
    return places


def mean_over_places(values: NDArray[np.float64], labels: NDArray[np.intp] | None) -> NDArray[np.float64]:
    """Return the mean of `values` over the places of shards with the same label, (n_shards,); as they are for None.

    Examples
    --------
    >>> mean_over_places(np.array([1.0, 3.0, 5.0]), np.array([0, 0, 1])).tolist()
    [2.0, 2.0, 5.0]
    """
    if labels is None:
        return values
    mean: NDArray[np.float64] = (np.bincount(labels, values) / np.bincount(labels))[labels]
    return mean
