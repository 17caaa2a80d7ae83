"""Rounds of nodes without a server in virtual time: who had its gradients ready, and when each round was over."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedgc.decentralised.graph import Graph
from fedgc.fleets.work import answers
from fedgc.play import Draws
from fedgc.validation import check_integer, check_positive, check_vector

Vector = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class NodeRounds:
    """What came of each round.

    Attributes
    ----------
    finished : ndarray of bool, shape (n_rounds, n_nodes)
        Whether each node had its gradients ready when its neighbours averaged.
    ends : ndarray, shape (n_rounds, n_nodes)
        Virtual seconds at which each node had averaged and began its next round.
    """

    finished: NDArray[np.bool_]
    ends: Vector


def deadline_rounds(draws: Draws, loads: ArrayLike, deadline: float, n_rounds: int) -> NodeRounds:
    """Play rounds that end at a deadline for all nodes.

    Parameters
    ----------
    draws : Draws
        The fleet's draws, to be shared by the methods that are compared.
    loads : array_like, shape (n_nodes,)
        Number of shards of each node.
    deadline : float
        Seconds of every round. No node sees all others, so that none can tell that all are ready before.
    n_rounds : int
        Number of rounds.

    Raises
    ------
    ValueError
        If a number is out of range, or there is not one load per client of the fleet.

    Notes
    -----
    Straggling is of the gradients: the models are exchanged in every round, by nodes that are late and by those that
    the fleet says are away too, and that takes no time beyond the fleet's overhead.

    Examples
    --------
    >>> from fedgc.fleets import LogNormalFleet
    >>> from fedgc.play import RoundDraws
    >>> fleet = LogNormalFleet(2, seed=1, sigma=0.0, median=[1.0, 5.0])
    >>> rounds = deadline_rounds(RoundDraws(fleet), [1, 1], 2.0, 2)
    >>> rounds.finished.tolist(), rounds.ends.tolist()
    ([[True, False], [True, False]], [[2.0, 2.0], [4.0, 4.0]])
    """
    work = _checked(draws, loads, n_rounds)
    seconds = check_positive("deadline", deadline)
    finished = np.zeros((n_rounds, work.size), dtype=np.bool_)
    for number in range(n_rounds):
        finished[number] = _seconds(draws, work, number, number * seconds) <= seconds
    return NodeRounds(finished, np.repeat(seconds * np.arange(1.0, n_rounds + 1.0)[:, None], work.size, axis=1))


def waiting_rounds(draws: Draws, loads: ArrayLike, n_rounds: int, *, graph: Graph | None = None) -> NodeRounds:
    """Play rounds in which nodes wait for gradients, however long they take.

    Parameters
    ----------
    draws, loads, n_rounds
        As in :func:`deadline_rounds`.
    graph : Graph, optional
        Every node waits for its neighbours in it, so that clocks drift apart; by default for all nodes.

    Raises
    ------
    ValueError
        As in :func:`deadline_rounds`, or if the graph is of another number of nodes.

    Notes
    -----
    With neighbours alone, ``end_i = max over j in N(i) and i itself of (end of j's round before + its seconds)``. A
    node that has gone is known to be so after the fleet's `loss_detection`; it is then averaged with as it is. Clients
    that come and go in virtual time are there or not by the clock of the last node.

    Examples
    --------
    >>> from fedgc.fleets import LogNormalFleet
    >>> from fedgc.play import RoundDraws
    >>> fleet = LogNormalFleet(3, seed=1, sigma=0.0, median=[1.0, 1.0, 5.0])
    >>> path = Graph(3, [(0, 1), (1, 2)])
    >>> waiting_rounds(RoundDraws(fleet), [1, 1, 1], 2, graph=path).ends.tolist()
    [[1.0, 5.0, 5.0], [6.0, 10.0, 10.0]]
    """
    work = _checked(draws, loads, n_rounds)
    if graph is not None and graph.n_nodes != work.size:
        raise ValueError(f"graph must be of {work.size} nodes, as loads; got {graph.n_nodes}")
    shape = (work.size, work.size)
    waits = np.ones(shape, bool) if graph is None else graph.adjacency | np.eye(work.size, dtype=np.bool_)
    finished, ends = np.zeros((n_rounds, work.size), dtype=np.bool_), np.zeros((n_rounds, work.size))
    clock = np.zeros(work.size)
    for number in range(n_rounds):
        seconds = _seconds(draws, work, number, float(clock.max()))
        finished[number] = np.isfinite(seconds)
        ready = clock + np.where(finished[number], seconds, draws.fleet.loss_detection)
        clock = ends[number] = np.where(waits, ready[None, :], -np.inf).max(axis=1)
    return NodeRounds(finished, ends)


def _checked(draws: Draws, loads: ArrayLike, n_rounds: int) -> Vector:
    check_integer("n_rounds", n_rounds, low=1)
    return check_vector("loads", loads, length=draws.fleet.n_clients, low=0.0, who="node")


def _seconds(draws: Draws, work: Vector, number: int, now: float) -> Vector:
    """Return the seconds until each node has its gradients, infinite if it goes away before; rounds count from 1."""
    return answers(draws.of_round(number + 1, now), work, draws.fleet.parameters["overhead"])[0]
