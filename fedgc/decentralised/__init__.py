"""Learning without a server: nodes on a graph step along coded gradients of their shards, and average by gossip."""

from fedgc.decentralised.descent import disagreement, gossip_descent, node_coefficients
from fedgc.decentralised.graph import Graph, complete, erdos_renyi, random_geometric, ring
from fedgc.decentralised.graph_fixed import GraphFixedDecoder, disagreement_form
from fedgc.decentralised.losses import QuadraticLoss, ShardedLoss
from fedgc.decentralised.mixing import check_mixing, metropolis_weights, second_singular_value
from fedgc.decentralised.regression import RegressionLoss
from fedgc.decentralised.rounds import NodeRounds, deadline_rounds, waiting_rounds

__all__ = [
    "Graph",
    "GraphFixedDecoder",
    "NodeRounds",
    "QuadraticLoss",
    "RegressionLoss",
    "ShardedLoss",
    "check_mixing",
    "complete",
    "deadline_rounds",
    "disagreement",
    "disagreement_form",
    "erdos_renyi",
    "gossip_descent",
    "metropolis_weights",
    "node_coefficients",
    "random_geometric",
    "ring",
    "second_singular_value",
    "waiting_rounds",
]
