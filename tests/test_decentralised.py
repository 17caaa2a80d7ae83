"""Nodes on a graph: unbiased by enumeration, and the limits that are known."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cvxpy as cp
import numpy as np
import pytest
from scipy import sparse

from fedgc.codes import MatrixCode, StochasticGradientCode, Uncoded
from fedgc.decentralised import (
    Graph,
    GraphFixedDecoder,
    QuadraticLoss,
    RegressionLoss,
    check_mixing,
    complete,
    deadline_rounds,
    disagreement,
    disagreement_form,
    erdos_renyi,
    gossip_descent,
    metropolis_weights,
    node_coefficients,
    random_geometric,
    ring,
    second_singular_value,
    waiting_rounds,
)
from fedgc.decoders import (
    Decoder,
    FixedDecoder,
    FixedGeneralDecoder,
    InverseProbabilityDecoder,
    SumDecoder,
)
from fedgc.fleets import build_fleet
from fedgc.gram import GramModel
from fedgc.play import RoundDraws
from tests.enumeration import arrival_sets

N, M = 8, 10
RING = metropolis_weights(ring(N))
SETTLED: dict[str, Decoder] = {
    "GOCO": InverseProbabilityDecoder(),
    "least variance": FixedDecoder(),
    "least variance, given coherence": FixedGeneralDecoder(),
    "for the graph": GraphFixedDecoder(RING),
}
GRAMS = {"orthogonal": GramModel.uniform(M, 0.0), "coherent": GramModel.uniform(M, 0.6)}


def world(seed: int, load: int = 3) -> tuple[StochasticGradientCode, np.ndarray, QuadraticLoss]:
    rng = np.random.default_rng([41, seed])
    roots = rng.standard_normal((M, 4, 4)) * 0.2
    loss = QuadraticLoss(rng.standard_normal((M, 4)), roots @ roots.transpose(0, 2, 1) + 0.1 * np.eye(4))
    return StochasticGradientCode(N, M, load, rng=rng), rng.uniform(0.05, 0.9, N), loss


@pytest.mark.parametrize("name", SETTLED)
@pytest.mark.parametrize("gram", GRAMS.values(), ids=GRAMS)
@pytest.mark.parametrize("seed", [0, 1])
def test_unbiased_over_all_sets_of_stragglers_per_node_and_in_sum(name: str, gram: GramModel, seed: int) -> None:
    code, p, loss = world(seed)
    calibrated = SETTLED[name].calibrate(code, p, gram)
    models = np.random.default_rng(seed).standard_normal((N, 4))
    coefficients = node_coefficients(calibrated)
    mean, moved = np.zeros((N, 4)), np.zeros(4)
    for ready, probability in arrival_sets(p):
        gradients = np.where(ready[:, None], loss.combined_gradients(models, coefficients), 0.0)
        mean += probability * gradients
        # What the mean model does in a round of which everyone begins with the same model.
        first, after = gossip_descent(loss, calibrated, RING, ready[None], [0.1], start=models[0])
        moved += probability * (first - after).mean(axis=0) / 0.1
    # Per node: its shards' gradients at its model, each with the node's share of it; shares sum to one over nodes.
    share = coefficients.toarray() * (1.0 - p)[:, None]
    np.testing.assert_allclose(share.sum(axis=0), 1.0, rtol=0, atol=1e-12)
    assert not share[code.encoding_matrix == 0.0].any()
    at = [loss.combined_gradients(np.repeat(models[i : i + 1], M, axis=0), _each()) for i in range(N)]
    np.testing.assert_allclose(mean, [share[i] @ at[i] for i in range(N)], rtol=0, atol=1e-12)
    # In sum: the gradient of the whole loss.
    np.testing.assert_allclose(moved, at[0].sum(axis=0), rtol=0, atol=1e-12)
    if name == "GOCO":
        np.testing.assert_allclose(share, code.encoding_matrix, rtol=0, atol=1e-15)


def _each() -> sparse.csr_array:
    return sparse.csr_array(np.eye(M))


def test_ignoring_stragglers_is_biased() -> None:
    """The enumeration above can fail."""
    _, p, _ = world(0)
    calibrated = SumDecoder().calibrate(Uncoded(N, M), p, GRAMS["orthogonal"])
    share = node_coefficients(calibrated).toarray() * (1.0 - p)[:, None]
    np.testing.assert_allclose(share.sum(axis=0), 1.0 - p[np.arange(M) * N // M])


@pytest.mark.parametrize("coherence", [0.0, 0.6])
def test_least_variance_against_an_oracle(coherence: float) -> None:
    """Weights a_ij with sum_i a_ij (1 - p_i) = 1 that minimise the variance of the sum over nodes."""
    code, p, _ = world(2)
    gram = GramModel.uniform(M, coherence)
    rule = FixedDecoder() if coherence == 0.0 else FixedGeneralDecoder()
    own = node_coefficients(rule.calibrate(code, p, gram)).toarray()
    held = code.encoding_matrix != 0.0
    a = cp.Variable((N, M))
    root = np.linalg.cholesky(gram.matrix)
    noise = cp.sum_squares(cp.multiply(np.sqrt(p * (1.0 - p))[:, None] * np.ones((N, M)), a @ root))
    cp.Problem(cp.Minimize(noise), [(1.0 - p) @ a == 1.0, cp.multiply(~held, a) == 0.0]).solve(solver=cp.CLARABEL)
    np.testing.assert_allclose(own, a.value, atol=1e-5)

    def variance(weights: np.ndarray) -> float:
        return float(np.sum(p * (1.0 - p) * np.einsum("ij,jk,ik->i", weights, gram.matrix, weights)))

    assert variance(own) <= variance(node_coefficients(SETTLED["GOCO"].calibrate(code, p, gram)).toarray()) * 0.9
    if coherence == 0.0:
        in_closed_form = np.where(held, 1.0 / p[:, None], 0.0)
        in_closed_form /= (1.0 - p) @ in_closed_form
        np.testing.assert_allclose(own, in_closed_form, rtol=1e-12)


@pytest.mark.parametrize("kappa", [0.0, 1.0, 20.0])
def test_weights_for_the_graph_against_an_oracle(kappa: float) -> None:
    code, p, _ = world(3)
    rule = GraphFixedDecoder(RING, disagreement=kappa)
    share = node_coefficients(rule.calibrate(code, p, GRAMS["orthogonal"])).toarray() * (1.0 - p)[:, None]
    form = disagreement_form(RING)
    form = np.diag(p / (1.0 - p)) + kappa * form / max(1.0, np.trace(form) / N)
    for shard in range(M):
        holders = np.flatnonzero(code.encoding_matrix[:, shard])
        a = cp.Variable(holders.size)
        cp.Problem(cp.Minimize(cp.quad_form(a, form[np.ix_(holders, holders)])), [cp.sum(a) == 1]).solve(
            solver=cp.CLARABEL
        )
        np.testing.assert_allclose(share[holders, shard], a.value, atol=1e-6)


@pytest.mark.parametrize("graph", [ring(7), Graph(5, [(0, 1), (1, 2), (1, 3), (3, 4)])], ids=["ring", "tree"])
def test_a_lasting_push_leaves_the_disagreement_of_the_form(graph: Graph) -> None:
    mixing = metropolis_weights(graph)
    push, x = np.random.default_rng(2).standard_normal(graph.n_nodes), np.zeros(graph.n_nodes)
    for _ in range(2000):
        x = mixing @ (x + push)
        x -= x.mean()
    assert x @ x == pytest.approx(push @ disagreement_form(mixing) @ push, rel=1e-9)


def test_extreme_probabilities_stay_unbiased() -> None:
    code, _, _ = world(4, load=N)
    for p in (np.zeros(N), np.full(N, 0.999), np.r_[0.0, 1e-9, np.full(N - 2, 0.99)]):
        share = node_coefficients(GraphFixedDecoder(RING).calibrate(code, p, GRAMS["orthogonal"])).toarray()
        np.testing.assert_allclose((1.0 - p) @ share, 1.0, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", SETTLED)
def test_equal_weights_on_the_complete_graph_are_descent_with_a_server(name: str) -> None:
    code, p, loss = world(5)
    calibrated = SETTLED[name].calibrate(code, p, GRAMS["orthogonal"])
    finished = np.random.default_rng(1).random((30, N)) >= p
    steps = 0.1 / (1.0 + np.arange(30) / 10.0)
    mixing = metropolis_weights(complete(N))
    np.testing.assert_allclose(mixing, 1.0 / N, rtol=1e-12)
    central = np.zeros(4)
    each = _each()
    for round_, models in enumerate(gossip_descent(loss, calibrated, mixing, finished, steps)):
        assert disagreement(models) < 1e-24
        np.testing.assert_allclose(models[0], central, rtol=1e-10, atol=1e-12)
        if round_ < 30:
            gradients = loss.combined_gradients(np.repeat(central[None], M, axis=0), each)
            central = central - steps[round_] * calibrated.decode(finished[round_]).coverage @ gradients


@pytest.mark.parametrize("name", SETTLED)
def test_without_stragglers_and_redundancy_it_is_decentralised_gradient_descent(name: str) -> None:
    _, _, loss = world(6)
    calibrated = SETTLED[name].calibrate(Uncoded(N, M), np.zeros(N), GRAMS["orthogonal"])
    x, own = np.zeros((N, 4)), Uncoded(N, M).encoding_matrix
    for round_, models in enumerate(gossip_descent(loss, calibrated, RING, np.ones((20, N), bool), np.full(20, 0.05))):
        np.testing.assert_allclose(models, x, rtol=0, atol=1e-12)
        if round_ < 20:
            x = RING @ (x - N * 0.05 * np.array([own[i] @ _gradients(loss, x[i]) for i in range(N)]))


def _gradients(loss: QuadraticLoss, x: np.ndarray) -> np.ndarray:
    return np.asarray(loss.combined_gradients(np.repeat(x[None], M, axis=0), _each()))


@pytest.mark.parametrize("name", SETTLED)
def test_all_nodes_come_to_the_optimum_with_decaying_steps(name: str) -> None:
    code, p, loss = world(7)
    calibrated = SETTLED[name].calibrate(code, p, GRAMS["orthogonal"])
    rounds = 20_000
    finished = np.random.default_rng(2).random((rounds, N)) >= p
    steps = 1.0 / (10.0 + np.arange(rounds))
    path = np.array(list(gossip_descent(loss, calibrated, RING, finished, steps)))
    distance = ((path - loss.optimum) ** 2).sum(axis=2).max(axis=1)
    assert distance[-1] < 1e-3 * distance[0]
    # Ten times the rounds: the squared distance goes down like the step, disagreement like its square.
    early, late = slice(1500, 2000), slice(-5000, None)
    assert distance[late].mean() < 0.3 * distance[early].mean()
    apart = np.array([disagreement(models) for models in path])
    assert apart[late].mean() < 0.03 * apart[early].mean()


def test_ignoring_stragglers_ends_elsewhere() -> None:
    _, p, loss = world(7)
    calibrated = SumDecoder().calibrate(Uncoded(N, M), p, GRAMS["orthogonal"])
    finished = np.random.default_rng(2).random((20_000, N)) >= p
    *_, last = gossip_descent(loss, calibrated, RING, finished, 1.0 / (10.0 + np.arange(20_000)))
    assert ((last - loss.optimum) ** 2).sum(axis=1).min() > 0.01 * (loss.optimum**2).sum()


def test_gradients_are_those_of_the_values() -> None:
    rng = np.random.default_rng(3)
    x, y, of = rng.standard_normal((30, 3)), rng.integers(0, 4, 30), np.r_[np.arange(5), rng.integers(0, 5, 25)]
    y[:4] = np.arange(4)
    loss = RegressionLoss(x, y, of, 0.1)
    models, direction = rng.standard_normal((2, loss.n_parameters)), rng.standard_normal(loss.n_parameters)
    everything = MatrixCode(np.ones((2, 5))).sparse_matrix
    slope = loss.combined_gradients(models, everything) @ direction
    ends = (loss.values(models + 1e-6 * direction) - loss.values(models - 1e-6 * direction)) / 2e-6
    np.testing.assert_allclose(slope, ends, rtol=1e-7)
    parts = [loss.combined_gradients(models, MatrixCode([[0.0] * j + [1.0] + [0.0] * (4 - j)] * 2, allow_unheld=True)
                                     .sparse_matrix) for j in range(5)]  # fmt: skip
    np.testing.assert_allclose(sum(parts), loss.combined_gradients(models, everything), rtol=1e-12, atol=1e-14)
    assert np.linalg.norm(loss.combined_gradients(loss.optimum[None], everything[:1])) < 1e-6
    assert (loss.values(loss.optimum + 0.01 * rng.standard_normal((50, loss.n_parameters))) > loss.least).all()


GRAPHS: dict[str, Callable[[np.random.Generator], Graph]] = {
    "ring": lambda rng: ring(9),
    "complete": lambda rng: complete(9),
    "geometric": lambda rng: random_geometric(9, 0.5, rng=rng),
    "random": lambda rng: erdos_renyi(9, 0.4, rng=rng),
    "one node": lambda rng: complete(1),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_metropolis_weights_serve_every_graph(name: str) -> None:
    for seed in range(5):
        graph = GRAPHS[name](np.random.default_rng(seed))
        mixing = check_mixing(metropolis_weights(graph), graph)
        assert np.array_equal(mixing, mixing.T)
        assert second_singular_value(mixing) < 1.0


def test_rounds_meet_the_fleets_draws() -> None:
    fleet = build_fleet({"preset": "paper", "clients": 6}, seed=3)
    draws = RoundDraws(fleet)
    times = np.array([[fleet.completion_time(i, t + 1, 2) for i in range(6)] for t in range(40)])
    by_deadline, graph = deadline_rounds(draws, np.full(6, 2.0), 1.5, 40), ring(6)
    assert np.array_equal(by_deadline.finished, times <= 1.5)
    np.testing.assert_allclose(by_deadline.ends[:, 0], 1.5 * np.arange(1, 41))
    for_all = waiting_rounds(draws, np.full(6, 2.0), 40)
    assert for_all.finished.all()
    np.testing.assert_allclose(for_all.ends[:, 2], np.cumsum(times.max(axis=1)))
    for_neighbours = waiting_rounds(draws, np.full(6, 2.0), 40, graph=graph)
    assert (for_neighbours.ends <= for_all.ends + 1e-9).all()
    assert for_neighbours.ends[-1].max() < for_all.ends[-1].max()
    everyone = waiting_rounds(draws, np.full(6, 2.0), 40, graph=complete(6))
    np.testing.assert_allclose(everyone.ends, for_all.ends)


def test_who_has_gone_is_waited_for_no_longer_than_the_network_takes_to_tell() -> None:
    fleet = build_fleet({"model": "log-normal", "clients": 5, "dropout": 0.5, "loss_detection": 9.0}, seed=1)
    rounds = waiting_rounds(RoundDraws(fleet), np.ones(5), 50)
    assert 0.3 < rounds.finished.mean() < 0.7
    lengths = np.diff(rounds.ends[:, 0], prepend=0.0)
    assert (lengths[~rounds.finished.all(axis=1)] >= 9.0).all()


def test_the_comparison_runs_on_identical_draws(tmp_path: Path) -> None:
    """The script itself asserts that all methods of a cell met the same draws."""
    script = Path(__file__).parents[1] / "experiments" / "neighbours" / "goco.py"
    command = [sys.executable, str(script), "--quick", "--out", str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    tables = {}
    for by, column in (("rounds", "round"), ("seconds", "seconds"), ("long", "round")):
        assert by == "long" or (tmp_path / f"goco-{by}.png").read_bytes().startswith(b"\x89PNG")
        with (tmp_path / f"goco-{by}.csv").open() as file:
            tables[by] = list(csv.DictReader(file))
        starts = {row["excess"] for row in tables[by] if float(row[column]) == 0.0}
        assert len(starts) == 1
    assert len({row["method"] for row in tables["rounds"]}) == 7
    assert {float(row["round"]) for row in tables["long"]} >= {0.0, 200.0}
    with (tmp_path / "goco-seconds-pairs.csv").open() as file:
        pairs = {(row["method"], row["over"]): row for row in csv.DictReader(file)}
    assert len(pairs) == 5
    for row in pairs.values():
        assert float(row["low"]) <= float(row["ratio"]) <= float(row["high"])
    end = {row["method"]: float(row["excess"]) for row in tables["seconds"] if row["seconds"] == "40"}
    assert len(end) == 9
    assert max(end["GOCO"], end["least-variance weights"], end["weights for the graph"]) < end["waits for all"]
