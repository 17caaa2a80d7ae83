"""Gossip weights: how much each node takes of each neighbour's model when all average."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedgc.decentralised.graph import Graph

Matrix = NDArray[np.float64]

#: How far rows and columns may be from a sum of one. Sums that are a little off shrink or grow all models a little in
#: every round, so that this has to be small against one over the number of rounds.
_SUM_ERROR = 1e-10


def metropolis_weights(graph: Graph) -> Matrix:
    """Return the mixing matrix that nodes can work out among neighbours, (n_nodes, n_nodes), symmetric.

    Parameters
    ----------
    graph : Graph
        Who exchanges models with whom.

    Notes
    -----
    ``W_ij = 1 / (1 + max(deg_i, deg_j))`` for neighbours, and each node keeps what is left to one of itself. The
    diagonal is positive, so that averaging converges on every connected graph, a ring of even length too.

    References
    ----------
    L. Xiao, S. Boyd, S. Lall, "Distributed average consensus with time-varying Metropolis weights", 2006.

    Examples
    --------
    >>> from fedgc.decentralised import complete, ring
    >>> metropolis_weights(ring(4)).round(2).tolist()[0], metropolis_weights(complete(4)).tolist()[0]
    ([0.33, 0.33, 0.0, 0.33], [0.25, 0.25, 0.25, 0.25])
    """
    degrees = graph.degrees
    weights = np.where(graph.adjacency, 1.0 / (1.0 + np.maximum.outer(degrees, degrees)), 0.0)
    np.fill_diagonal(weights, 1.0 - weights.sum(axis=1))
    return weights


def check_mixing(mixing: ArrayLike, graph: Graph | None = None) -> Matrix:
    """Return `mixing` as a matrix if it is doubly stochastic, fits the graph, and lets all nodes agree.

    Parameters
    ----------
    mixing : array_like, shape (n_nodes, n_nodes)
        What node i takes of the model of node j.
    graph : Graph, optional
        Nodes that are no neighbours then must not take anything of each other.

    Raises
    ------
    ValueError
        If the matrix is not square, has no rows or is not real, an entry is negative or not finite, a row or a column
        does not sum to one, two nodes exchange models that are no neighbours, or repeated averaging would not bring all
        nodes together.

    Notes
    -----
    It need not be symmetric. That columns sum to one keeps the mean model where it is; that rows do keeps nodes that
    agree where they are.

    Examples
    --------
    >>> check_mixing([[0.5, 0.5], [0.6, 0.4]])
    Traceback (most recent call last):
    ...
    ValueError: mixing must have columns that sum to 1; got 1.1 for column 0
    """
    try:
        given = np.array(mixing)
        # Of a complex array the real part would be taken, with no more than a warning.
        real = not np.iscomplexobj(given)
        matrix = given.astype(np.float64) if real else np.empty(0)
    except (TypeError, ValueError):
        raise ValueError(f"mixing must be a square matrix of numbers; got {mixing!r:.80}") from None
    if not real:
        raise ValueError(f"mixing must be a square matrix of real numbers; got entries of {given.dtype}")
    size = matrix.shape[0] if graph is None and matrix.ndim else graph.n_nodes if graph is not None else 0
    if matrix.ndim != 2 or matrix.shape != (size, size) or size == 0:
        nodes = "a row per node, at least one" if graph is None else f"a row for each of {size} nodes"
        raise ValueError(f"mixing must be a square matrix with {nodes}; got shape {matrix.shape}")
    good = np.isfinite(matrix) & (matrix >= 0.0)
    if not good.all():
        i, j = np.unravel_index(int(np.argmin(good)), matrix.shape)
        raise ValueError(f"mixing must be of finite numbers of at least 0; got {matrix[i, j]:g} in row {i}, column {j}")
    for what, sums in (("row", matrix.sum(axis=1)), ("column", matrix.sum(axis=0))):
        off = np.abs(sums - 1.0)
        if off.max() > _SUM_ERROR:
            worst = int(off.argmax())
            raise ValueError(f"mixing must have {what}s that sum to 1; got {sums[worst]:.10g} for {what} {worst}")
    if graph is not None:
        outside = (matrix > 0.0) & ~graph.adjacency & ~np.eye(size, dtype=np.bool_)
        if outside.any():
            i, j = np.unravel_index(int(np.argmax(outside)), matrix.shape)
            raise ValueError(f"mixing must be 0 for nodes that are no neighbours; got {matrix[i, j]:g} for {i}, {j}")
    if _second_modulus(matrix) >= 1.0 - 1e-12:
        raise ValueError("mixing must let all nodes agree in the end; got a second eigenvalue of modulus 1")
    matrix.setflags(write=False)
    return matrix


def second_singular_value(mixing: Matrix) -> float:
    """Return the part of the disagreement that one averaging leaves at most, ``|W - 11'/n|``.

    Examples
    --------
    >>> from fedgc.decentralised import complete, ring
    >>> [round(second_singular_value(metropolis_weights(graph)), 3) for graph in (complete(20), ring(20))]
    [0.0, 0.967]
    """
    return float(np.linalg.norm(mixing - 1.0 / len(mixing), ord=2))


def _second_modulus(matrix: Matrix) -> float:
    return float(np.abs(np.linalg.eigvals(matrix - 1.0 / len(matrix))).max())
