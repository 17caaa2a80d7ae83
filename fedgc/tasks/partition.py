"""Split a labelled data set into shards."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


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
