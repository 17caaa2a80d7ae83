"""Nodes on a graph: what cannot serve, each told in one clear line."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from fedgc.arrivals import ProgressArrivals
from fedgc.codes import Uncoded, WorkLists
from fedgc.decentralised import (
    Graph,
    GraphFixedDecoder,
    QuadraticLoss,
    RegressionLoss,
    check_mixing,
    deadline_rounds,
    erdos_renyi,
    gossip_descent,
    metropolis_weights,
    node_coefficients,
    random_geometric,
    ring,
    waiting_rounds,
)
from fedgc.decoders import CalibratedDecoder, FixedDecoder, OptimalUnbiasedDecoder, SumDecoder
from fedgc.fleets import build_fleet
from fedgc.gram import GramModel
from fedgc.play import RoundDraws

N = 8
RING = metropolis_weights(ring(N))

BAD: dict[str, tuple[Callable[[], object], str]] = {
    "in parts": (lambda: Graph(5, [(0, 1), (2, 3)]), r"edges must join all 5 nodes; got 3 parts, and no path from"),
    "loop": (lambda: Graph(3, [(1, 1)]), r"edges must join two different nodes; got \(1, 1\)"),
    "no node": (lambda: Graph(3, [(0, 3)]), r"edges must be an integer from 0 to 2; got 3"),
    "three ends": (lambda: Graph(3, [(0, 1, 2)]), r"edges must be pairs of nodes; got \(0, 1, 2\)"),  # type: ignore[list-item]
    "small ring": (lambda: ring(2), r"n_nodes must be an integer of at least 3; got 2"),
    "short radius": (
        lambda: random_geometric(9, 0.01, rng=np.random.default_rng(0)),
        r"radius = 0.01 must be enough to join all 9 nodes; got no connected graph in 100",
    ),
    "edge prob": (lambda: erdos_renyi(5, 1.5, rng=np.random.default_rng(0)), r"edge_prob must lie in \(0, 1\]; got"),
    "rows": (lambda: check_mixing([[0.6, 0.5], [0.5, 0.5]]), r"mixing must have rows that sum to 1; got 1.1 for row 0"),
    "columns": (lambda: check_mixing([[0.5, 0.5], [0.6, 0.4]]), r"mixing must have columns that sum to 1; got 1.1"),
    "negative": (lambda: check_mixing([[1.5, -0.5], [-0.5, 1.5]]), r"finite numbers of at least 0; got -0.5 in row 0"),
    "not a number": (lambda: check_mixing([[np.nan, 1.0], [1.0, 0.0]]), r"finite numbers of at least 0; got nan"),
    "no pairs": (lambda: Graph(3, [0, 1]), "edges must be pairs of nodes; got 0"),  # type: ignore[list-item]
    "ragged": (lambda: check_mixing([[1.0], [0.5, 0.5]]), r"mixing must be a square matrix of numbers; got \[\[1.0"),
    "words": (lambda: check_mixing([["a"]]), r"mixing must be a square matrix of numbers; got \[\['a'\]\]"),
    "shape": (lambda: check_mixing(np.ones((2, 3))), r"mixing must be a square matrix .* got shape \(2, 3\)"),
    "nobody": (lambda: check_mixing(np.zeros((0, 0))), r"with a row per node, at least one; got shape \(0, 0\)"),
    "complex": (lambda: check_mixing(np.eye(2) + 0j), r"square matrix of real numbers; got entries of complex128"),
    "scalar": (lambda: check_mixing(1.0), r"mixing must be a square matrix .* got shape \(\)"),
    "apart": (lambda: check_mixing(np.eye(3)), r"mixing must let all nodes agree in the end"),
    "taking turns": (lambda: check_mixing([[0.0, 1.0], [1.0, 0.0]]), r"mixing must let all nodes agree in the end"),
    "no neighbours": (
        lambda: check_mixing(np.full((4, 4), 0.25), ring(4)),
        r"mixing must be 0 for nodes that are no neighbours; got 0.25 for 0, 2",
    ),
    "seen by nobody": (
        lambda: node_coefficients(OptimalUnbiasedDecoder().calibrate(*_small())),
        r"decoder must have weights that are settled before the round, one per node; got CalibratedFor",
    ),
    "work lists": (
        lambda: node_coefficients(_of_lists()),
        r"decoder must have weights that are settled before the round, one per node",
    ),
    "nodes": (
        lambda: gossip_descent(
            QuadraticLoss(np.zeros((2, 1))), SumDecoder().calibrate(*_small()), RING, np.ones((1, N), bool), [1.0]
        ),
        r"decoder must be of 8 nodes and 2 shards, as mixing and loss; got \(2, 2\)",
    ),
    "finished": (
        lambda: gossip_descent(
            *_of_two(), np.ones((1, 3)), [1.0]
        ),
        r"finished must be boolean of shape \(n_rounds, 2\); got float64 of \(1, 3\)",
    ),
    "steps": (
        lambda: gossip_descent(
            *_of_two(), np.ones((1, 2), bool), [-1.0]
        ),
        r"steps must lie in \[0, inf\); got -1 for round 0",
    ),
    "disagreement": (lambda: GraphFixedDecoder(RING, disagreement=-1.0), r"disagreement must be a finite number"),
    "other nodes": (lambda: GraphFixedDecoder(RING).calibrate(*_small()), r"mixing must be of 2 nodes, as the code"),
    "centres": (lambda: QuadraticLoss([1.0, 2.0]), r"centres must be a matrix .* got shape \(2,\)"),
    "curvature": (lambda: QuadraticLoss([[1.0]], [[[-1.0]]]), r"curvatures must be symmetric and positive definite"),
    "empty shard": (
        lambda: RegressionLoss(np.ones((2, 1)), [0, 1], [0, 2], 0.1), r"shard_of must leave no shard empty; .* shard 1"
    ),
    "regularisation": (
        lambda: RegressionLoss(np.ones((2, 1)), [0, 1], [0, 1], 0.0), r"regularisation must be a finite number above 0"
    ),
    "examples": (
        lambda: RegressionLoss(np.ones((3, 1)), [0, 1], [0, 1], 0.1), r"x, y and shard_of must be of as many examples"
    ),
    "loads": (
        lambda: deadline_rounds(RoundDraws(build_fleet({"preset": "paper", "clients": 3}, seed=1)), [1, 1], 1.5, 1),
        r"loads must have shape \(3,\); got shape \(2,\)",
    ),
    "graph of others": (
        lambda: waiting_rounds(
            RoundDraws(build_fleet({"preset": "paper", "clients": 3}, seed=1)), [1, 1, 1], 1, graph=ring(4)
        ),
        r"graph must be of 3 nodes, as loads; got 4",
    ),
}  # fmt: skip


def _small() -> tuple[Uncoded, list[float], GramModel]:
    return Uncoded(2, 2), [0.5, 0.5], GramModel.uniform(2, 0.0)


def _of_two() -> tuple[QuadraticLoss, CalibratedDecoder, np.ndarray]:
    return QuadraticLoss(np.zeros((2, 1))), SumDecoder().calibrate(*_small()), np.full((2, 2), 0.5)


def _of_lists() -> CalibratedDecoder:
    code = WorkLists([[[0], [1]], [[1], [0]]], 2)
    return FixedDecoder().calibrate(code, ProgressArrivals(code, [[0.2, 0.3, 0.5]] * 2), GramModel.uniform(2, 0.0))


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_serve_is_one_clear_line(name: str) -> None:
    make, message = BAD[name]
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
