"""The sections of the runtime "decentralised": the graph that nodes are on, and how they weigh gradients."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, StrictFloat, StrictInt

from fedgc.decentralised import Graph, check_mixing, complete, metropolis_weights, random_geometric, ring
from fedgc.errors import ConfigError
from fedgc.experiment.config.keys import Count, Grid, Name, Positive, Section

#: What is neither a rival nor GradientCoding: nodes without a server.
DECENTRALISED = "decentralised"


class GraphConfig(Section):
    """Clients as nodes on a graph, who average with their neighbours, and the loss that they minimise.

    Attributes
    ----------
    graph : {"ring", "complete", "geometric", "edges"}
        Who is whose neighbour; "geometric": nodes at random places of a unit square, within `radius` of each other;
        "edges": those of `edges`.
    edges : list of (int, int), optional
        Pairs of neighbours, of nodes from 0, which must join all of them; for the graph "edges" alone.
    mixing : list of list of float, optional
        What each node, row by row, takes of the model of each: doubly stochastic, nothing of nodes that are no
        neighbours. By default Metropolis's weights, :func:`fedgc.decentralised.metropolis_weights`.
    radius : float
        Of a geometric graph. One that is too small for any connected graph is refused.
    regularisation : float
        The l2 term's weight, which makes the loss strongly convex.
    decay : float
        Steps are ``1 / (1 / task.learning_rate + decay x round)``.
    """

    graph: Literal["ring", "complete", "geometric", "edges"] = "geometric"
    edges: list[list[StrictInt]] | None = None
    mixing: list[list[StrictFloat]] | None = None
    radius: Annotated[float, Field(gt=0, le=2, allow_inf_nan=False, strict=True)] = 0.5
    regularisation: Positive = 0.01
    decay: Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)] = 0.0

    def build(self, n_nodes: int, seed: int) -> Graph:
        """Return the graph, the same for all methods with one seed, or raise ValueError if there is none.

        That is if none is connected, or edges are given or left out as they should not be.
        """
        if self.graph == "edges":
            if self.edges is None:
                raise ValueError("edges must be given for graph 'edges'; got nothing")
            return Graph(n_nodes, self.edges)
        if self.edges is not None:
            raise ValueError(f"edges must be left out for graph {self.graph!r}; got {len(self.edges)} of them")
        if self.graph == "geometric":
            return random_geometric(n_nodes, self.radius, rng=np.random.default_rng([seed, 97]))
        return ring(n_nodes) if self.graph == "ring" else complete(n_nodes)

    def mixing_on(self, graph: Graph) -> NDArray[np.float64]:
        """Return the mixing matrix on that graph, or raise ValueError if it is no good."""
        return metropolis_weights(graph) if self.mixing is None else check_mixing(self.mixing, graph)


class NodesConfig(Section):
    """Decentralised learning: who holds how much, what gradients count, and how long a node waits for its neighbours.

    Attributes
    ----------
    load : int
        Holders of each shard; of more than one as in stochastic gradient coding.
    decoder : str
        "inverse-probability" is GOCO's rule, "fixed" the settled weights of least variance, "graph-fixed" those for
        the graph, and "sum" counts every holder for its part, whoever is ready.
    deadline : float or None
        Seconds of a round, at whose end all average, those too who are not ready; None to wait.
    waits_for : {"everyone", "neighbours"}
        For whom, without a deadline.
    """

    kind: Literal["decentralised"]
    label: Name
    load: Count = 1
    decoder: Literal["inverse-probability", "fixed", "graph-fixed", "sum"] = "graph-fixed"
    deadline: Positive | None = None
    waits_for: Literal["everyone", "neighbours"] = "everyone"
    grid: Grid = Field(default_factory=dict)


def check_nodes(strategy: NodesConfig, where: str, *, n_clients: int) -> None:
    """Check what no single key shows.

    Raises
    ------
    ConfigError
        If shards are to have more holders than there are nodes, or a node is to wait and not to.
    """
    if strategy.load > n_clients:
        raise ConfigError(f"{where}.load must be at most fleet.clients = {n_clients}; got {strategy.load}")
    if strategy.deadline is not None and strategy.waits_for != "everyone":
        raise ConfigError(f"{where}.waits_for must be left out where there is a deadline; got {strategy.waits_for!r}")
