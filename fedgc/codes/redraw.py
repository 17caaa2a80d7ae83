"""Redraw: shards of a block change places in its work lists every round, so that none is always last."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedgc.codes.base import Code
from fedgc.validation import check_indices, check_integer

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


def checked_labels(
    interchangeable: ArrayLike, lists: Sequence[NDArray[np.intp]], held: Sequence[ArrayLike] | None, n_shards: int
) -> NDArray[np.intp]:
    """Return the labels of shards that change places, numbered from 0 on, (n_shards,).

    Parameters
    ----------
    interchangeable : array_like of int, shape (n_shards,)
        Label of each shard.
    lists : sequence of ndarray of int
        The shards of each client's list.
    held : sequence of array_like of int, or None
        The shards that each client holds; None if these are its list.
    n_shards : int
        Number of shards.

    Raises
    ------
    ValueError
        If there is not a label for every shard, or a list could come to name a shard that its client does not hold.

    Notes
    -----
    Any shard of a label may come to any place of it. So a client with one of them in its list has to hold all of them.
    Its list need not name them all: it may end sooner.

    Examples
    --------
    >>> lists = [np.array([1, 0]), np.array([1])]
    >>> checked_labels([7, 7, 9], lists, [[0, 1, 2], [0, 1]], 3).tolist()
    [0, 0, 1]
    >>> checked_labels([7, 7, 9], lists, None, 3)
    Traceback (most recent call last):
    ...
    ValueError: interchangeable must label alike only shards that every client with one in its list holds all of; \
got 7 for shards of which client 1 lists 1 but does not hold 0
    """
    labels = check_indices("interchangeable", interchangeable)
    if labels.shape != (n_shards,):
        raise ValueError(f"interchangeable must have shape ({n_shards},); got shape {labels.shape}")
    number: NDArray[np.intp] = np.unique(labels, return_inverse=True)[1].astype(np.intp)
    holdings = lists if held is None else [check_indices(f"held of client {c}", own) for c, own in enumerate(held)]
    if len(holdings) != len(lists):
        raise ValueError(f"held must have one entry per client, {len(lists)}; got {len(holdings)}")
    beyond = [int(own.max()) for own in holdings if own.size and own.max() >= n_shards]
    if beyond:
        raise ValueError(f"held must name shards from 0 to {n_shards - 1}; got {beyond[0]}")
    size = np.bincount(number)
    client, shard = _copies(lists, n_shards)
    wanted = np.unique(client * size.size + number[shard])
    client, shard = _copies(holdings, n_shards)
    had, copies = np.unique(client * size.size + number[shard], return_counts=True)
    short = np.setdiff1d(wanted, had[copies == size[had % size.size]])
    if short.size:
        first, label = divmod(int(short[0]), size.size)
        alike = np.flatnonzero(number == label)
        listed, lacking = np.intersect1d(alike, lists[first])[0], np.setdiff1d(alike, holdings[first])[0]
        raise ValueError(
            f"interchangeable must label alike only shards that every client with one in its list holds all of; got "
            f"{labels[listed]} for shards of which client {first} lists {listed} but does not hold {lacking}"
        )
    return number


def _copies(of_clients: Sequence[NDArray[np.intp]], n_shards: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return client and shard of every copy, each copy once."""
    clients = np.repeat(np.arange(len(of_clients)), [shards.size for shards in of_clients])
    return np.divmod(np.unique(clients * n_shards + np.concatenate(of_clients)), n_shards)
