"""Split a labelled data set into shards."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fedgc.validation import check_integer, check_positive, one_of

#: How labels are spread over shards.
Partition = Literal["dirichlet", "sorted", "iid"]
PARTITIONS: tuple[Partition, ...] = get_args(Partition)


def build_shards(  # noqa: PLR0917  (a partition and what it heeds)
    labels: NDArray[np.integer],
    n_shards: int,
    partition: Partition,
    alpha: float,
    rng: np.random.Generator,
    pieces: int = 1,
) -> list[NDArray[np.intp]]:
    """Split a labelled data set into shards by the name of a partition.

    Parameters
    ----------
    labels : ndarray of int, shape (n_examples,)
        Class of each example.
    n_shards : int
        Number of shards, at most n_examples.
    partition : str
        ``"dirichlet"``, see :func:`dirichlet_shards`; ``"sorted"``, see :func:`sorted_shards`; or ``"iid"``, see
        :func:`iid_shards`.
    alpha : float
        Concentration of the Dirichlet distribution; the other partitions do not heed it.
    rng : numpy.random.Generator
        Source of randomness.
    pieces : int
        Divide each of the shards at random into so many, which follow one another, of sizes that differ by at most one:
        empty ones, where a shard has fewer examples. The shards themselves do not depend on it.

    Returns
    -------
    list of ndarray of int
        Indices of the examples of each shard, each example in exactly one; none is empty without `pieces`.

    Raises
    ------
    ValueError
        If there are more shards than examples, or a parameter is not what it must be.

    Examples
    --------
    >>> labels = np.array([1, 0, 1, 0])
    >>> [sorted(labels[shard]) for shard in build_shards(labels, 2, "sorted", 0.3, np.random.default_rng(0))]
    [[np.int64(0), np.int64(0)], [np.int64(1), np.int64(1)]]
    """
    one_of("task.partition", partition, PARTITIONS)
    check_integer("task.shards", n_shards, low=1, high=labels.size)
    check_integer("task.pieces", pieces, low=1)
    if partition == "sorted":
        shards = sorted_shards(labels, n_shards, rng)
    elif partition == "iid":
        shards = iid_shards(labels.size, n_shards, rng)
    else:
        shards = dirichlet_shards(labels, n_shards, check_positive("task.alpha", alpha), rng)
    if pieces == 1:
        return shards
    return [piece for shard in shards for piece in np.array_split(rng.permutation(shard), pieces)]


def sorted_shards(labels: NDArray[np.integer], n_shards: int, rng: np.random.Generator) -> list[NDArray[np.intp]]:
    """Order the examples by label, and cut them into contiguous shards of equal size.

    Most shards hold one label, and the labels of neighbours are alike: what is lost with a straggler is as unlike the
    rest as it can be.

    Parameters
    ----------
    labels : ndarray of int, shape (n_examples,)
        Class of each example.
    n_shards : int
        Number of shards, at most n_examples.
    rng : numpy.random.Generator
        Orders the examples of one label.

    Returns
    -------
    list of ndarray of int
        Indices of the examples of each shard, whose sizes differ by at most one.

    Examples
    --------
    >>> labels = np.array([1, 0, 2, 1, 0, 2])
    >>> [labels[shard].tolist() for shard in sorted_shards(labels, 3, np.random.default_rng(0))]
    [[0, 0], [1, 1], [2, 2]]
    """
    shuffled = rng.permutation(labels.size)
    return list(np.array_split(shuffled[np.argsort(labels[shuffled], kind="stable")], n_shards))


def iid_shards(n_examples: int, n_shards: int, rng: np.random.Generator) -> list[NDArray[np.intp]]:
    """Shuffle the examples, and cut them into shards of equal size.

    Parameters
    ----------
    n_examples : int
        Number of examples.
    n_shards : int
        Number of shards, at most n_examples.
    rng : numpy.random.Generator
        Shuffles.

    Returns
    -------
    list of ndarray of int
        Indices of the examples of each shard, whose sizes differ by at most one.

    Examples
    --------
    >>> [shard.size for shard in iid_shards(7, 3, np.random.default_rng(0))]
    [3, 2, 2]
    """
    return list(np.array_split(rng.permutation(n_examples), n_shards))


def dirichlet_shards(
    labels: NDArray[np.integer], n_shards: int, alpha: float, rng: np.random.Generator
) -> list[NDArray[np.intp]]:
    """Spread each class over the shards in proportions drawn from a symmetric Dirichlet distribution.

    Parameters
    ----------
    labels : ndarray of int, shape (n_examples,)
        Class of each example; n_examples must be at least n_shards.
    n_shards : int
        Number of shards.
    alpha : float
        Concentration: below one, most of a class goes to a few shards; above ten, shards are nearly alike.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    list of ndarray of int
        Indices of the examples of each shard, none of them empty, each example in exactly one.

    References
    ----------
    T.-M. H. Hsu, H. Qi, M. Brown, "Measuring the Effects of Non-Identical Data Distribution for Federated Visual
    Classification", arXiv 1909.06335.

    Examples
    --------
    >>> shards = dirichlet_shards(np.array([0, 0, 0, 1, 1, 1]), 3, 0.3, np.random.default_rng(1))
    >>> sorted(int(i) for shard in shards for i in shard)
    [0, 1, 2, 3, 4, 5]
    """
    if n_shards > labels.size:
        raise ValueError(f"n_shards must be at most the number of examples, {labels.size}; got {n_shards}")
    parts: list[list[int]] = [[] for _ in range(n_shards)]
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        cuts = np.cumsum(rng.dirichlet(np.full(n_shards, alpha)))[:-1] * members.size
        for part, chunk in zip(parts, np.split(members, cuts.round().astype(int)), strict=True):
            part.extend(chunk.tolist())
    for part in parts:
        # An empty shard would be work without data: it gets one example from the largest.
        if not part:
            part.append(max(parts, key=len).pop())
    return [np.array(part, dtype=np.intp) for part in parts]
