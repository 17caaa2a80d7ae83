"""The literature's codes in Flower's rounds: what is decoded is what code and decoder say of the clients that came."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from fedgc.strategies import GradientCoding
from flwr.serverapp.strategy import FedAvg

from fedgc.assignment import AssignmentConstraints, own_part
from fedgc.codes import MatrixCode, Uncoded, over_shards
from fedgc.decoders import DECODERS
from fedgc.fleets import build_fleet
from fedgc.gram import GramModel
from fedgc.schemes import CODES, SCHEMES
from fedgc.simulation.grid import FIRST_NODE_ID
from tests.apps import EXAMPLES, N_SHARDS, arrays_of, full_aggregate, initial_arrays, shard_delta, steady, train

INNER: dict[str, Any] = {"fraction_evaluate": 0.0, "min_train_nodes": 1, "min_available_nodes": 1}
PAIRS = [
    *((scheme.name, scheme.decoder) for scheme in SCHEMES),
    ("uncoded", "scaled-mean"),
    ("sgc-authors", "inverse-probability"),
    ("random-regular", "fixed"),
    ("erasure-head", "optimal-unbiased"),
]


def coding(code: Any, decoder: str, **options: Any) -> GradientCoding:
    options = {"deadline": 4.0, "load": 2, "shard_examples": EXAMPLES, **options}
    return GradientCoding(FedAvg(**INNER), num_shards=N_SHARDS, code=code, decoder=decoder, **options)


@pytest.mark.parametrize(("code", "decoder"), PAIRS, ids=str)
def test_what_is_decoded_is_what_code_and_decoder_say(code: str, decoder: str) -> None:
    strategy = coding(code, decoder)
    uneven = build_fleet({"preset": "uneven", "clients": 6}, seed=3)
    result, run = train(strategy, uneven, rounds=1)
    plan = strategy.state.plan
    assert plan is not None
    # The plan of round 1, weighed anew for the clients whose replies the trace shows.
    came = {event.client for event in run.trace if event.kind == "replied" and event.server_round == 1}
    arrived = np.isin([node - FIRST_NODE_ID for node in plan.node_ids], list(came))
    reference = DECODERS[decoder]().calibrate(plan.code, plan.arrivals, plan.gram).decode(arrived)
    np.testing.assert_allclose(strategy.history[0].coverage, reference.coverage, atol=1e-12)
    before = arrays_of(initial_arrays())
    share = np.array(EXAMPLES) / sum(EXAMPLES)
    deltas = [shard_delta(shard, before) for shard in range(N_SHARDS)]
    for name, value in arrays_of(result.arrays).items():
        update = sum(s * c * d[name] for s, c, d in zip(share, reference.coverage, deltas, strict=True))
        np.testing.assert_allclose(value, before[name] + update, rtol=1e-5, atol=1e-6)
    assert 0 < len(came) < 6


@pytest.mark.parametrize(
    ("code", "decoder"), [pair for pair in PAIRS if DECODERS[pair[1]].unbiased and pair[0] != "sgc-authors"]
)
def test_unbiased_decoders_are_so_on_every_code(code: str, decoder: str) -> None:
    strategy = coding(code, decoder)
    train(strategy, build_fleet({"preset": "uneven", "clients": 6}, seed=3), rounds=3)
    plan = strategy.state.plan
    assert plan is not None
    mean = np.zeros(N_SHARDS)
    for bits in range(2**plan.code.n_clients):
        arrived = np.array([bool(bits >> client & 1) for client in range(plan.code.n_clients)])
        chance = np.prod(np.where(arrived, 1.0 - plan.straggle_prob, plan.straggle_prob))
        mean += chance * plan.decoder.decode(arrived).coverage
    np.testing.assert_allclose(mean, 1.0, atol=1e-9)


def test_exact_recovery_is_exact_with_a_straggler() -> None:
    strategy = coding("cyclic-repetition", "least-squares", load=3)
    slow = steady(6, median=[1.0, 1.0, 1.0, 1.0, 90.0, 90.0])
    result, _ = train(strategy, slow, rounds=1)
    expected, before = full_aggregate(initial_arrays()), arrays_of(initial_arrays())
    for name, value in arrays_of(result.arrays).items():
        np.testing.assert_allclose(value, before[name] + expected[name], rtol=1e-5, atol=1e-6)


# Blocks that are balanced by the probabilities are the exception.
@pytest.mark.parametrize("code", sorted(set(CODES) - {"fractional-repetition", "equal-blocks"}))
def test_shards_stay_where_they_are_while_estimates_change(code: str) -> None:
    held = []
    strategy = coding(code, "fixed" if code != "sgc-authors" else "sum")
    for rounds in (1, 5):
        train(strategy, build_fleet({"preset": "uneven", "clients": 6}, seed=3), rounds=rounds)
        assert strategy.state.plan is not None
        held.append(strategy.state.plan.code.encoding_matrix != 0.0)
    # Coefficients of the base paper's schemes may be zero where all clients are thought alike.
    assert (held[1] >= held[0]).all() if code.startswith("scheme") else (held[1] == held[0]).all()


def test_a_regular_graph_that_does_not_exist_leaves_a_node_out() -> None:
    strategy = coding("random-regular", "fixed", load=3)
    train(strategy, steady(5), rounds=1)
    assert strategy.state.plan is not None and strategy.state.plan.code.n_clients == 4


def test_nodes_beyond_the_shards_have_no_part() -> None:
    strategy = coding("uncoded", "fixed")
    train(strategy, steady(8), rounds=2)
    assert strategy.state.plan is not None and strategy.state.plan.code.n_clients == N_SHARDS


def test_known_times_give_known_probabilities() -> None:
    fleet = build_fleet({"preset": "uneven", "clients": 6}, seed=3)
    strategy = coding("scheme-I", "inverse-probability", timing=fleet)
    train(strategy, fleet, rounds=2)
    plan = strategy.state.plan
    assert plan is not None and plan.deadline == 4.0
    work = [plan.code.shards_of(client).size for client in range(6)]
    np.testing.assert_allclose(plan.straggle_prob, np.minimum(fleet.straggle_prob(4.0, work), 1 - 1e-12), rtol=1e-12)


@pytest.mark.parametrize("code", ["uncoded", "erasure-head"])
@pytest.mark.parametrize("sums", ["shard", "whole"])
def test_work_lists_of_a_given_code_count_what_is_done(code: str, sums: str) -> None:
    strategy = coding(code, "optimal-unbiased", schedule="work-list", sums=sums, deadline=3.0)
    result, _ = train(strategy, build_fleet({"preset": "uneven", "clients": 3}, seed=3), rounds=1)
    plan = strategy.state.plan
    assert plan is not None
    before, share = arrays_of(initial_arrays()), np.array(EXAMPLES) / sum(EXAMPLES)
    coverage = strategy.history[0].coverage
    assert 0 < np.count_nonzero(coverage) < N_SHARDS
    for name, value in arrays_of(result.arrays).items():
        deltas = [shard_delta(shard, before)[name] for shard in range(N_SHARDS)]
        update = sum(s * c * d for s, c, d in zip(share, coverage, deltas, strict=True))
        np.testing.assert_allclose(value, before[name] + update, rtol=1e-5, atol=1e-6)


def test_work_lists_need_coefficients_of_one() -> None:
    with pytest.raises(ValueError, match=r"code must be one of .* for schedule 'work-list'; got 'sgc'"):
        coding("sgc", "fixed", schedule="work-list")
    own = coding(CODES["sgc"], "fixed", schedule="work-list")
    with pytest.raises(ValueError, match="code must have coefficients of one"):
        train(own, steady(6))


def test_a_code_of_ones_own() -> None:
    strategy = coding(lambda p, load, rng: Uncoded(p.size, p.size), "inverse-probability")
    result, _ = train(strategy, steady(3), rounds=1)
    assert strategy.history[0].n_blocks == 3
    assert result.arrays is not None


def test_units_are_runs_of_shards() -> None:
    for n_clients, n_shards in ((3, 7), (4, 4), (5, 12)):
        wide = over_shards(Uncoded(n_clients, n_clients), n_shards)
        parts = [own_part(client, n_clients, n_shards) for client in range(n_clients)]
        assert [wide.shards_of(client).tolist() for client in range(n_clients)] == [list(part) for part in parts]
    with pytest.raises(ValueError, match="n_shards must"):
        over_shards(Uncoded(4, 4), 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"code": "scheme-3"}, "code must be one of"),
        ({"code": 3}, "code must be a name or"),
        ({"code": "sgc", "constraints": AssignmentConstraints(storage=[6] * 6)}, "constraints must be left out"),
    ],
)
def test_refusals(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GradientCoding(num_shards=6, deadline=1.0, **options)


@pytest.mark.parametrize("sums", ["shard", "whole"])
def test_a_partial_mean_weighs_clients_by_their_part_whatever_they_have_done(sums: str) -> None:
    strategy = coding("uncoded", "partial-mean", schedule="work-list", sums=sums, deadline=3.0)
    # Two shards for each of three clients: both, one, none of them by the deadline.
    train(strategy, steady(3, median=[1.0, 2.0, 9.0]), rounds=1)
    coverage = strategy.history[0].coverage.reshape(3, 2)
    assert coverage[0].tolist() == [1.5, 1.5]
    assert sorted(coverage[1].tolist()) == [0.0, 3.0]
    assert coverage[2].tolist() == [0.0, 0.0]


def test_of_copies_that_are_dealt_at_random_only_what_nobody_holds_is_lost() -> None:
    code = CODES["sgc-authors"](np.full(6, 0.5), 2, np.random.default_rng(3))
    held = code.sparse_matrix.toarray().any(axis=0)
    assert 0 < held.sum() < 6
    decoder = DECODERS["inverse-probability"]().calibrate(code, np.linspace(0.2, 0.7, 6), GramModel.uniform(6, 0.0))
    mean = np.zeros(6)
    for arrived in itertools.product([False, True], repeat=6):
        chance = np.prod(np.where(arrived, 1.0 - np.linspace(0.2, 0.7, 6), np.linspace(0.2, 0.7, 6)))
        mean += chance * decoder.decode(np.array(arrived)).coverage
    np.testing.assert_allclose(mean, held, atol=1e-12)


def test_coefficients_of_a_shard_that_cancel_are_refused() -> None:
    code = MatrixCode(np.array([[1.0, 1.0], [-1.0, 1.0]]))
    with pytest.raises(ValueError, match="columns of the encoding matrix must not sum to 0; got 0 for shard 0"):
        DECODERS["inverse-probability"]().calibrate(code, [0.5, 0.5], GramModel.uniform(2, 0.0))
