"""Random regular graph code: shard j is held by the neighbours of vertex j."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedgc.codes.matrix import MatrixCode
from fedgc.validation import check_integer


class RandomRegularGraphCode(MatrixCode):
    """The adjacency matrix of a random regular graph: as many shards as clients, `load` copies of each.

    Parameters
    ----------
    n_clients : int
        Number of clients, shards and vertices.
    load : int
        Degree, from 1 to n_clients - 1, with ``n_clients * load`` even.
    rng : numpy.random.Generator
        Draws the graph.

    Notes
    -----
    A circulant graph is randomised by switching pairs of edges, (a, b), (c, d) to (a, d), (c, b), where that makes no
    loop or double edge. Switches keep all degrees and reach every regular graph; unlike pairing stubs at random, they
    also work where the graph is dense.

    References
    ----------
    M. Glasgow, M. Wootters, "Approximate Gradient Coding with Optimal Decoding", IEEE J. Sel. Areas Inf. Theory 2(3),
    2021.

    Examples
    --------
    >>> matrix = RandomRegularGraphCode(6, 3, rng=np.random.default_rng(0)).encoding_matrix
    >>> matrix.sum(axis=0).tolist(), bool((matrix == matrix.T).all()), matrix.trace()
    ([3.0, 3.0, 3.0, 3.0, 3.0, 3.0], True, np.float64(0.0))
    """

    def __init__(self, n_clients: int, load: int, *, rng: np.random.Generator) -> None:
        check_integer("n_clients", n_clients, low=2)
        check_integer("load", load, low=1, high=n_clients - 1)
        if n_clients * load % 2:
            raise ValueError(f"n_clients * load must be even; got {n_clients} * {load}")
        super().__init__(_random_regular_adjacency(n_clients, load, rng))


def _random_regular_adjacency(n: int, degree: int, rng: np.random.Generator) -> NDArray[np.float64]:
    linked = np.zeros((n, n), dtype=np.bool_)
    vertex = np.arange(n)
    for step in range(1, degree // 2 + 1):
        linked[vertex, (vertex + step) % n] = linked[(vertex + step) % n, vertex] = True
    if degree % 2:  # n is even then
        linked[vertex, (vertex + n // 2) % n] = True
    edges = np.argwhere(np.triu(linked))
    # Ten switches per edge, twice what is commonly taken as enough to forget the start.
    for first, second in rng.integers(0, len(edges), (10 * len(edges), 2)):
        (a, b), (c, d) = edges[first], rng.permutation(edges[second])
        if a == d or c == b or linked[a, d] or linked[c, b]:
            continue
        linked[[a, b, c, d], [b, a, d, c]] = False
        linked[[a, d, c, b], [d, a, b, c]] = True
        edges[first], edges[second] = (a, d), (c, b)
    return linked.astype(np.float64)
