"""Memory of past updates: unbiased whatever it holds, exact where nothing has changed, and convergent."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from fedgc.clients import ShardUpdate, gradient_coded
from fedgc.strategies import GradientCoding
from flwr.app import Array, ArrayRecord, ConfigRecord, Context
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedgc.arrivals import ProgressArrivals
from fedgc.codes import Chain, Code, CyclicRepetition, FractionalRepetition, Uncoded, WorkLists
from fedgc.decoders import DECODERS, Decoder, FixedDecoder, LeastSquaresDecoder, OptimalUnbiasedDecoder
from fedgc.fleets import build_fleet
from fedgc.gram import GramModel
from fedgc.memory import UpdateMemory, units_of
from fedgc.reliability import ReliabilityPosterior
from fedgc.round import CodedUpdate, Planning, RoundPlan, RoundState, finish_round, plan_round
from fedgc.simulation import run_virtual
from tests.apps import steady, train
from tests.enumeration import arrival_sets, joint_sets

ARRAYS = {"a": np.zeros(3), "b": np.zeros((2, 2))}
SIZES = np.array([3.0, 1.0, 4.0, 1.0, 5.0, 9.0])
NODES = (11, 5, 7, 2, 9)
RNG = np.random.default_rng(5)


def random_updates(n: int) -> list[dict[str, NDArray[Any]]]:
    return [{name: RNG.standard_normal(value.shape) for name, value in ARRAYS.items()} for _ in range(n)]


def weighted(coefficients: NDArray[np.float64], updates: list[dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    return {name: sum(c * u[name] for c, u in zip(coefficients, updates, strict=True)) for name in ARRAYS}


UPDATES = random_updates(6)
FULL = weighted(SIZES / SIZES.sum(), UPDATES)


def coded(plan: RoundPlan, client: int, updates: list[dict[str, NDArray[Any]]]) -> CodedUpdate:
    code = plan.decoder.code
    sums = {row: weighted(code.encoding_matrix[row] * SIZES, updates) for row in [client]}
    shards = code.shards_of(client)
    return CodedUpdate(sums, shards, SIZES[shards])


def assert_close(left: Mapping[str, Any], right: Mapping[str, Any], tolerance: float = 1e-12) -> None:
    for name in ARRAYS:
        np.testing.assert_allclose(left[name], right[name], atol=tolerance)


def some_memory(units: int) -> UpdateMemory:
    """Return a memory of random things, unit 0 never seen."""
    return UpdateMemory(np.arange(6), dict(enumerate(random_updates(units)[1:], start=1)))


@pytest.mark.parametrize("decoder", [kind() for kind in DECODERS.values() if kind.unbiased], ids=lambda kind: kind.name)
@pytest.mark.parametrize("load", [1, 2])
def test_differences_are_decoded_without_bias_but_for_empty_rounds(decoder: Decoder, load: int) -> None:
    reliability = ReliabilityPosterior(forgetting=1.0)
    for node, came in itertools.product(NODES, (True, False, False)):
        reliability = reliability.update({node: came})
    state = RoundState(SIZES, reliability, memory=some_memory(6))
    plan = plan_round(state, NODES, Planning(load=load, decoder=decoder))
    held = weighted(np.ones(6), [state.memory.updates.get(j, random_zero()) for j in range(6)])  # type: ignore[union-attr]
    mean: dict[str, Any] = {name: np.zeros(value.shape) for name, value in ARRAYS.items()}
    for arrived, probability in arrival_sets(plan.straggle_prob):
        replies = {int(client): coded(plan, int(client), UPDATES) for client in np.flatnonzero(arrived)}
        _, outcome = finish_round(state, plan, replies, arrays=ARRAYS)
        if outcome.update is None:
            assert not arrived.any()
            empty = probability
            continue
        for name in ARRAYS:
            mean[name] += probability * outcome.update[name]
    # An empty round leaves the model as it is: what memory alone would have added is missing.
    assert_close({name: mean[name] + empty * held[name] / SIZES.sum() for name in ARRAYS}, FULL)


def random_zero() -> dict[str, NDArray[Any]]:
    return {name: np.zeros(value.shape) for name, value in ARRAYS.items()}


@pytest.mark.parametrize(
    "lists", [[[0, 1, 2], [2, 1, 0], [3, 4, 5]], [[[0, 1], [2]], [[2], [1, 0]], [[3], [4, 5]]]], ids=["whole", "shares"]
)
def test_prefix_sums_are_decoded_as_differences_without_bias(lists: list[Any]) -> None:
    code = WorkLists(lists, n_shards=6)
    arrivals = ProgressArrivals(code, [[0.3, 0.2, 0.3, 0.2]] * 3)
    calibrated = OptimalUnbiasedDecoder().calibrate(code, arrivals, GramModel(SIZES**2, 0.3 * SIZES))
    memory = some_memory(6).for_units(units_of(code), SIZES)
    mean: dict[str, Any] = {name: np.zeros(value.shape) for name, value in ARRAYS.items()}
    for arrived, probability in joint_sets(arrivals):
        decoding = calibrated.decode(arrived)
        update = memory.rest(decoding.coverage, ARRAYS)
        for row in np.flatnonzero(arrived):
            total = weighted(code.encoding_matrix[row] * SIZES, UPDATES)
            for name in ARRAYS:
                update[name] += decoding.decoding_weights[row] * total[name]
        for name in ARRAYS:
            mean[name] += probability * update[name]
    assert_close(mean, weighted(SIZES, UPDATES), 1e-11)


@pytest.mark.parametrize("decoder", [OptimalUnbiasedDecoder(), FixedDecoder(), LeastSquaresDecoder()])
def test_unchanged_updates_are_decoded_without_error(decoder: Decoder) -> None:
    state = RoundState(SIZES, memory=UpdateMemory.empty(6))
    plan = plan_round(state, NODES, Planning(load=2, decoder=decoder))
    everyone = {client: coded(plan, client, UPDATES) for client in range(5)}
    state, _ = finish_round(state, plan, everyone, arrays=ARRAYS)
    plan = plan_round(state, NODES, Planning(load=2, decoder=decoder))
    for client in range(5):
        _, outcome = finish_round(state, plan, {client: coded(plan, client, UPDATES)}, arrays=ARRAYS)
        assert outcome.update is not None
        assert_close(outcome.update, FULL)


@given(st.data())
def test_refreshing_is_the_smallest_change_that_agrees(data: st.DataObject) -> None:
    """Against the dense least-norm solution, over random rows, repeated ones and prefixes among them."""
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    n_rows = data.draw(st.integers(1, 4))
    rows = rng.integers(0, 2, size=(n_rows, 5)).astype(float)
    rows[rows.sum(axis=1) == 0.0, 0] = 1.0
    energy = np.exp(rng.uniform(-2, 2, size=5))
    before, now = rng.standard_normal((5, 3)), rng.standard_normal((5, 3))
    memory = UpdateMemory(np.arange(5), {j: {"w": before[j]} for j in range(5)})
    after = memory.refresh(rows, [{"w": row @ now} for row in rows], energy)
    root = np.sqrt(energy)
    change = root[:, None] * np.linalg.lstsq(rows * root, rows @ (now - before), rcond=1e-10)[0]
    for j in range(5):
        np.testing.assert_allclose(
            after.updates[j]["w"] if j in after.updates else before[j], before[j] + change[j], atol=1e-9
        )
    assert all((memory.updates[j]["w"] == before[j]).all() for j in range(5)), "the old memory stays as it was"


def test_what_a_unit_had_is_divided_among_its_shards_and_put_together_again() -> None:
    blocks = UpdateMemory(np.array([0, 0, 1, 1, 1, 2]), {0: {"w": np.array([8.0])}, 1: {"w": np.array([10.0])}})
    single = blocks.for_units(np.arange(6), SIZES)
    assert {unit: float(update["w"][0]) for unit, update in single.updates.items()} == pytest.approx(
        {0: 6.0, 1: 2.0, 2: 4.0, 3: 1.0, 4: 5.0}
    )
    again = single.for_units(blocks.unit_of_shard, SIZES)
    assert {unit: float(update["w"][0]) for unit, update in again.updates.items()} == pytest.approx({0: 8.0, 1: 10.0})
    assert blocks.for_units(blocks.unit_of_shard.copy(), SIZES) is blocks


@pytest.mark.parametrize(
    "code",
    [
        FractionalRepetition([0, 1, 0], [1, 1, 0]),
        Uncoded(2, 5),
        WorkLists([[0, 1, 2], [1, 0]], n_shards=3),
        WorkLists([[[0], [1]], [[1], [0]]], n_shards=2),
        CyclicRepetition(3, 2, rng=np.random.default_rng(1)),
        Chain([0.2, 0.3, 0.5]),
    ],
    ids=lambda code: type(code).__name__,
)
def test_shards_that_only_arrive_summed_are_one_unit(code: Code) -> None:
    units = units_of(code)
    same = units[:, None] == units
    matrix = code.encoding_matrix
    np.testing.assert_array_equal(same, (matrix[:, :, None] == matrix[:, None, :]).all(axis=0))


@pytest.mark.parametrize("decoder", [OptimalUnbiasedDecoder(), LeastSquaresDecoder(), FixedDecoder()])
def test_a_constant_step_reaches_the_optimum_with_memory_only(decoder: Decoder) -> None:
    """Least squares shards pull to different points; without memory the stragglers' noise never ends."""
    pulls = RNG.standard_normal((6, 3)) + 2.0
    optimum = (SIZES / SIZES.sum()) @ pulls
    code = FractionalRepetition([0, 1, 2, 0, 1, 2], [0, 0, 1, 1, 2, 2])
    calibrated = decoder.calibrate(code, np.full(6, 0.6), GramModel(SIZES**2, 0.1 * SIZES))
    distance = {}
    for remember in (True, False):
        rng, x, memory = np.random.default_rng(3), np.zeros(3), UpdateMemory.empty(6).for_units(units_of(code), SIZES)
        for _ in range(800):
            arrived = rng.random(6) > 0.6
            shards = SIZES[:, None] * (pulls - x)
            rows = calibrated.code.encoding_matrix[arrived]
            decoding = calibrated.decode(arrived)
            update = decoding.decoding_weights[arrived] @ (rows @ shards)
            if remember:
                update = update + memory.rest(decoding.coverage, {"w": x})["w"]
                memory = memory.refresh(rows, [{"w": row @ shards} for row in rows], SIZES**2)
            x = x + 0.1 * update / SIZES.sum()
        distance[remember] = float(np.linalg.norm(x - optimum))
    assert distance[True] < 1e-9
    assert distance[False] > 1e-3


@pytest.mark.parametrize("options", [{}, {"schedule": "work-list"}, {"schedule": "work-list", "sums": "whole"}])
def test_in_a_run_the_memory_follows_blocks_and_work_lists(options: dict[str, Any]) -> None:
    """With all clients there, least squares decodes everything in full, with memory and without."""
    inner = {"fraction_evaluate": 0.0, "min_train_nodes": 1, "min_available_nodes": 1}
    strategies = [
        GradientCoding(FedAvg(**inner), num_shards=6, deadline=500.0, decoder="least-squares", memory=memory, **options)
        for memory in (False, True)
    ]
    runs = [train(strategy, steady(), rounds=4)[0] for strategy in strategies]
    memory = strategies[1].state.memory
    assert memory is not None
    assert len(memory.updates) == memory.n_units
    assert strategies[0].state.memory is None
    for left, right in zip(*(result.arrays.to_numpy_ndarrays() for result in runs), strict=True):
        np.testing.assert_allclose(left, right, atol=1e-6)


@pytest.mark.parametrize(
    "options", [{}, {"schedule": "work-list", "sums": "shard"}, {"schedule": "work-list", "sums": "whole"}], ids=str
)
@pytest.mark.parametrize("memory", [False, True])
def test_what_a_client_sent_once_stands_in_for_it_when_it_is_too_slow(options: dict[str, Any], memory: bool) -> None:
    """Through messages: from round 2 on two of six clients miss every deadline, and the updates do not change."""
    fleet = build_fleet(
        {
            "model": "log-normal",
            "clients": 6,
            "sigma": 0.0,
            "median": 1.0,
            "change_after": [1.0, 1.0, 1e6, 1e6, 1e6, 1e6],
            "change_factor": 1000.0,
        },
        seed=1,
    )
    strategy = GradientCoding(
        FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1),
        num_shards=6,
        deadline=20.0,
        load=1,
        decoder="least-squares",
        reassignment_gain=1.0,
        memory=memory,
        **options,
    )
    app, server, results = ClientApp(), ServerApp(), []

    @app.train()
    @gradient_coded(num_shards=6)
    def train_shard(shard_id: int, arrays: ArrayRecord, config: ConfigRecord) -> ShardUpdate:
        return ShardUpdate(1, delta={"w": 6.0 * np.eye(6)[shard_id]})

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        results.append(strategy.start(grid, ArrayRecord({"w": Array(np.zeros(6))}), num_rounds=5))

    run_virtual(server, app, fleet, num_shards=6)
    steps = results[0].arrays["w"].numpy()
    np.testing.assert_allclose(np.sort(steps), [5.0] * 6 if memory else [1.0, 1.0] + [5.0] * 4, atol=1e-6)
