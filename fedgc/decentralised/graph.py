"""Who exchanges models with whom: connected undirected graphs, from a list of edges or by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

from fedgc.validation import check_integer, check_positive

#: Random graphs are drawn anew until one is connected, so often at most.
_MOST_DRAWS = 100
#: With fewer nodes the one before and the one after are the same.
LEAST_RING = 3


@dataclass(frozen=True, eq=False)
class Graph:
    """A connected undirected graph.

    Parameters
    ----------
    n_nodes : int
        Number of nodes.
    edges : iterable of (int, int)
        Pairs of neighbours, in either order; a pair that comes twice counts once.

    Raises
    ------
    ValueError
        If an edge leads to itself or to a node that does not exist, or some nodes cannot be reached from others.

    Examples
    --------
    >>> Graph(3, [(0, 1), (2, 1), (1, 0)]).edges
    ((0, 1), (1, 2))
    >>> Graph(4, [(0, 1), (2, 3)])
    Traceback (most recent call last):
    ...
    ValueError: edges must join all 4 nodes; got 2 parts, and no path from node 0 to node 2
    """

    n_nodes: int
    edges: tuple[tuple[int, int], ...]

    def __init__(self, n_nodes: int, edges: Iterable[Iterable[int]]) -> None:
        check_integer("n_nodes", n_nodes, low=1)
        kept = set()
        for edge in edges:
            pair = tuple(edge) if isinstance(edge, Iterable) else ()
            if len(pair) != 2:
                raise ValueError(f"edges must be pairs of nodes; got {edge!r:.80}")
            low, high = sorted(check_integer("edges", node, low=0, high=n_nodes - 1) for node in pair)
            if low == high:
                raise ValueError(f"edges must join two different nodes; got ({low}, {low})")
            kept.add((low, high))
        object.__setattr__(self, "n_nodes", n_nodes)
        object.__setattr__(self, "edges", tuple(sorted(kept)))
        n_parts, part = _parts(self.adjacency)
        if n_parts > 1:
            apart = int(np.argmax(part != part[0]))
            raise ValueError(
                f"edges must join all {n_nodes} nodes; got {n_parts} parts, and no path from node 0 to node {apart}"
            )

    @property
    def adjacency(self) -> NDArray[np.bool_]:
        """Whether two nodes are neighbours, (n_nodes, n_nodes); no node is its own."""
        neighbours = np.zeros((self.n_nodes, self.n_nodes), dtype=np.bool_)
        if self.edges:
            low, high = np.array(self.edges).T
            neighbours[low, high] = neighbours[high, low] = True
        return neighbours

    @property
    def degrees(self) -> NDArray[np.intp]:
        """Number of neighbours of each node, (n_nodes,)."""
        degrees: NDArray[np.intp] = self.adjacency.sum(axis=1)
        return degrees


def ring(n_nodes: int) -> Graph:
    """Return the graph in which every node has two neighbours, the one before and the one after it.

    Examples
    --------
    >>> ring(4).edges
    ((0, 1), (0, 3), (1, 2), (2, 3))
    """
    check_integer("n_nodes", n_nodes, low=LEAST_RING)
    return Graph(n_nodes, ((node, (node + 1) % n_nodes) for node in range(n_nodes)))


def complete(n_nodes: int) -> Graph:
    """Return the graph in which every node is every other's neighbour.

    Examples
    --------
    >>> complete(4).degrees.tolist()
    [3, 3, 3, 3]
    """
    check_integer("n_nodes", n_nodes, low=1)
    return Graph(n_nodes, combinations(range(n_nodes), 2))


def random_geometric(n_nodes: int, radius: float, *, rng: np.random.Generator) -> Graph:
    """Return a graph of random places in the unit square, neighbours if at most `radius` apart.

    Raises
    ------
    ValueError
        If a hundred draws leave some node out of reach.

    Examples
    --------
    >>> random_geometric(10, 0.5, rng=np.random.default_rng(0)).degrees.tolist()
    [6, 1, 3, 5, 2, 3, 3, 5, 4, 4]
    """
    check_integer("n_nodes", n_nodes, low=1)
    check_positive("radius", radius)

    def neighbours() -> NDArray[np.bool_]:
        place = rng.random((n_nodes, 2))
        near: NDArray[np.bool_] = ((place[:, None] - place[None, :]) ** 2).sum(axis=2) <= radius**2
        return near

    return _first_connected(n_nodes, neighbours, f"radius = {radius:g}")


def erdos_renyi(n_nodes: int, edge_prob: float, *, rng: np.random.Generator) -> Graph:
    """Return a graph in which every pair of nodes are neighbours with probability `edge_prob`.

    Raises
    ------
    ValueError
        If the probability does not lie in (0, 1], or a hundred draws leave some node out of reach.

    Examples
    --------
    >>> erdos_renyi(10, 0.4, rng=np.random.default_rng(0)).degrees.tolist()
    [3, 4, 5, 3, 4, 3, 1, 3, 2, 4]
    """
    check_integer("n_nodes", n_nodes, low=1)
    if not check_positive("edge_prob", edge_prob) <= 1.0:
        raise ValueError(f"edge_prob must lie in (0, 1]; got {edge_prob:g}")
    return _first_connected(n_nodes, lambda: rng.random((n_nodes, n_nodes)) < edge_prob, f"edge_prob = {edge_prob:g}")


def _first_connected(n_nodes: int, neighbours: Callable[[], NDArray[np.bool_]], setting: str) -> Graph:
    for _ in range(_MOST_DRAWS):
        upper = np.triu(neighbours(), 1)
        if _parts(upper)[0] == 1:
            return Graph(n_nodes, zip(*(axis.tolist() for axis in np.nonzero(upper)), strict=True))
    raise ValueError(f"{setting} must be enough to join all {n_nodes} nodes; got no connected graph in {_MOST_DRAWS}")


def _parts(adjacency: NDArray[np.bool_]) -> tuple[int, NDArray[np.int32]]:
    """Return the number of parts that no edge joins, and the part of each node."""
    return connected_components(adjacency, directed=False)
