"""Learning without a server from a configuration: what is run is gossip descent, in the same sweeps as all else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedgc.errors import ConfigError
from fedgc.experiment.cells import cells_of
from fedgc.experiment.config import GraphConfig, check_config
from fedgc.experiment.decentralised import world
from fedgc.experiment.sweep import run_experiment

CONFIG: dict[str, Any] = {
    "name": "nodes",
    "rounds": 8,
    "seeds": [1],
    "target_loss": 0.1,
    "runtime": "decentralised",
    "timing": "known",
    "task": {"name": "digits-regression", "shards": 6, "partition": "sorted", "learning_rate": 0.5},
    "fleet": {"preset": "paper", "clients": 6},
    "decentralised": {"graph": "complete", "decay": 0.01},
    "strategies": [{"kind": "decentralised", "label": "waits", "decoder": "sum"}],
}


def with_(**changes: Any) -> dict[str, Any]:
    return {**CONFIG, **changes}


def one(**options: Any) -> list[dict[str, Any]]:
    return [{"kind": "decentralised", "label": "a", **options}]


def test_where_everyone_is_joined_and_waited_for_it_is_gradient_descent() -> None:
    config = check_config(CONFIG)
    rows = run_experiment(config)
    _, mixing, loss, _ = world(config, GraphConfig(graph="complete"), 1)
    np.testing.assert_allclose(mixing, 1.0 / 6.0)
    model, step = np.zeros((1, loss.n_parameters)), 1e-6
    for t, row in enumerate(rows):
        assert row.round == t
        assert row.loss == pytest.approx(float(loss.values(model)[0]), rel=1e-9)
        # By central differences of the loss: the gradient that is being run would prove nothing of itself.
        moved = np.repeat(model, 2 * loss.n_parameters, axis=0)
        moved[np.arange(loss.n_parameters), np.arange(loss.n_parameters)] += step
        moved[loss.n_parameters + np.arange(loss.n_parameters), np.arange(loss.n_parameters)] -= step
        values = loss.values(moved)
        gradient = (values[: loss.n_parameters] - values[loss.n_parameters :]) / (2.0 * step)
        model = model - gradient[None, :] / (1.0 / 0.5 + 0.01 * t)
        if t == 2:
            break


def test_a_deadline_ends_rounds_and_leaves_stragglers_without_a_step() -> None:
    strategies = [*one(deadline=1.5), {"kind": "decentralised", "label": "b", "waits_for": "neighbours"}]
    rows = run_experiment(check_config(with_(strategies=strategies, decentralised={"graph": "ring"})))
    cut, waits = ([row for row in rows if row.strategy == label] for label in "ab")
    assert [row.seconds for row in cut] == [1.5 * t for t in range(9)]
    assert {row.metrics["fedgc-arrived"] for row in waits[1:]} == {6.0}
    assert any(row.metrics["fedgc-arrived"] < 6.0 for row in cut[1:])
    assert waits[-1].loss < waits[0].loss


def test_cells_are_kept_apart_by_graph() -> None:
    keys = {
        cells_of(check_config(with_(decentralised=graph)))[0].key
        for graph in ({"graph": "ring"}, {"graph": "complete"}, {"graph": "ring", "decay": 0.1})
    }
    assert len(keys) == 3


def test_edges_and_mixing_may_be_given() -> None:
    ring = [[node, (node + 1) % 6] for node in range(6)]
    third = [[1 / 3 if (a - b) % 6 in {0, 1, 5} else 0.0 for b in range(6)] for a in range(6)]
    lazy = [[2 / 3 if a == b else third[a][b] / 2 for b in range(6)] for a in range(6)]
    of: dict[str, list[float]] = {}
    for name, graph in {
        "named": {"graph": "ring"},
        "edges": {"graph": "edges", "edges": ring},
        "mixing": {"graph": "ring", "mixing": third},
        "lazy": {"graph": "edges", "edges": ring, "mixing": lazy},
    }.items():
        of[name] = [row.loss for row in run_experiment(check_config(with_(decentralised=graph)))]
    assert of["named"] == of["edges"]
    assert of["mixing"] == pytest.approx(of["named"], rel=1e-12)
    assert of["lazy"][-1] != pytest.approx(of["named"][-1], rel=1e-6), "another matrix"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decentralised": {"radius": 0.01}}, "decentralised.radius = 0.01 must be enough to join all 6 nodes; got no"),
        ({"strategies": [{"kind": "mifa", "deadline": 1.0}]}, "strategies.0.kind must be 'decentralised' for runtime"),
        ({"runtime": "virtual"}, "strategies.0.kind must be a strategy with a server for runtime 'virtual'; got"),
        ({"strategies": one(load=7)}, "strategies.0.load must be at most fleet.clients = 6; got 7"),
        (
            {"strategies": one(deadline=1.0, waits_for="neighbours")},
            "strategies.0.waits_for must be left out where there is a deadline; got 'neighbours'",
        ),
        (
            {"task": {"name": "digits"}},
            "task.name must be 'digits-regression' for runtime 'decentralised'; got 'digits'",
        ),
        (
            {"decentralised": {"graph": "ring"}, "fleet": {"preset": "paper", "clients": 2}},
            "fleet.clients must be at least 3 for decentralised.graph 'ring'; got 2",
        ),
        (
            {"decentralised": {"radios": 0.3}},
            "decentralised.radios is not a known key, allowed are graph, edges, mixing, radius, regularisation, decay; "
            "got 0.3, did you mean radius?",
        ),
        ({"timing": "learnt"}, "timing must be 'known' for runtime 'decentralised'; got 'learnt'"),
        ({"strategies": one(lod=2)}, "strategies.0.lod is not a known key, allowed are kind, label, load, "),
        (
            {"decentralised": {"graph": "star"}},
            "decentralised.graph must be 'ring', 'complete', 'geometric' or 'edges'; got 'star'",
        ),
        ({"decentralised": {"graph": "edges"}}, "decentralised.edges must be given for graph 'edges'; got nothing"),
        (
            {"decentralised": {"graph": "edges", "edges": [[0, 1], [2, 3], [3, 4], [4, 5]]}},
            "decentralised.edges must join all 6 nodes; got 2 parts, and no path from node 0 to node 2",
        ),
        (
            {"decentralised": {"graph": "edges", "edges": [[0, 1, 2]]}},
            "decentralised.edges must be pairs of nodes; got [0, 1, 2]",
        ),
        (
            {"decentralised": {"graph": "edges", "edges": [[0, 9]]}},
            "decentralised.edges must be an integer from 0 to 5; got 9",
        ),
        (
            {"decentralised": {"graph": "edges", "edges": [[1, 1]]}},
            "decentralised.edges must join two different nodes; got (1, 1)",
        ),
        (
            {"decentralised": {"graph": "complete", "mixing": [[0.5, 0.5], [0.5, 0.5]]}},
            "decentralised.mixing must be a square matrix with a row for each of 6 nodes; got shape (2, 2)",
        ),
        (
            {"decentralised": {"graph": "complete", "mixing": [["0.5"]]}},
            "decentralised.mixing.0.0 must be ",
        ),
        (
            {"decentralised": {"graph": "ring", "edges": [[0, 1]]}},
            "decentralised.edges must be left out for graph 'ring'; got 1 of them",
        ),
        (
            {"decentralised": {"graph": "complete", "mixing": [[0.5] * 6] * 6}},
            "decentralised.mixing must have rows that sum to 1; got 3 for row 0",
        ),
        (
            {"decentralised": {"graph": "complete", "mixing": [[0.5, 0.5], [1.0]]}},
            "decentralised.mixing must be a square matrix of numbers; got [[0.5, 0.5], [1.0]]",
        ),
        (
            {"decentralised": {"graph": "ring", "mixing": [[1 / 6] * 6] * 6}},
            "decentralised.mixing must be 0 for nodes that are no neighbours; got 0.166667 for 0, 2",
        ),
    ],
)
def test_what_cannot_be_run_without_a_server_is_said_in_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        check_config(with_(**changes))
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)
