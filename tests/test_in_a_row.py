"""Shards in a row: batches across their borders, what is decoded of them, and what does not go with it."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from fedgc.clients import RowOfShards, ShardUpdate, coded_in_a_row
from fedgc.clients.encode import Budget
from fedgc.clients.in_a_row import piece_sizes
from fedgc.strategies import GradientCoding, VarianceAwareFedAdam
from fedgc.strategies.messages.replies import read_reply
from fedgc.strategies.options import as_decoder
from fedgc.strategies.rounds.tasks import ClientTask
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAvg, Strategy

from fedgc.arrivals import ProgressArrivals
from fedgc.codes import WorkLists
from fedgc.coherence import CoherenceEstimate
from fedgc.deadline import (
    AutomaticDeadline,
    DeadlineRule,
    FixedDeadline,
    RoundForecast,
    time_at_fixed_step,
    time_to_target,
)
from fedgc.errors import ConfigError
from fedgc.experiment.config import check_config
from fedgc.experiment.sweep import run_experiment
from fedgc.fleets import build_fleet
from fedgc.noise import NoiseSensitivity
from fedgc.protocol import BUDGET, RECORD, SIMULATED_PROGRESS
from fedgc.round import CodedUpdate, Planning, RoundFold, RoundState, finish_round, plan_round
from fedgc.round.saved_state import state_from_tree, state_to_tree
from fedgc.simulation import run_virtual
from fedgc.simulation.grid import FIRST_NODE_ID
from fedgc.updates import ScaledDifference
from tests.apps import initial_arrays, shard_app, steady, train

INNER: dict[str, Any] = {"fraction_evaluate": 0.0, "min_train_nodes": 1, "min_available_nodes": 1}
PIECES = 3
#: Examples of four shards: numbers that tell them apart, of which one shard has fewer than pieces.
EXAMPLES = [np.arange(8), 100 + np.arange(7), 200 + np.arange(2), 300 + np.arange(9)]
SIZES = [part for own in EXAMPLES for part in piece_sizes(own.size, PIECES)]


def row_of(piece_ids: list[int], progress: int | None = None) -> RowOfShards:
    budget = Budget(ConfigRecord({} if progress is None else {SIMULATED_PROGRESS: progress}))
    return RowOfShards(piece_ids, PIECES, budget, seed_of=lambda shard: 7 + shard)


@pytest.mark.parametrize(("size", "epochs"), [(1, 1), (4, 1), (5, 3), (100, 2)])
def test_every_example_of_a_piece_comes_once_an_epoch(size: int, epochs: int) -> None:
    row = row_of([11, 0, 4, 2, 6, 1, 8, 9, 3, 10, 7, 5])
    batches = list(row.batches(EXAMPLES.__getitem__, size=size, epochs=epochs))
    assert all(batch.size == size for batch in batches[:-1]) and 0 < batches[-1].size <= size
    np.testing.assert_array_equal(
        np.sort(np.concatenate(batches)), np.sort(np.repeat(np.concatenate(EXAMPLES), epochs))
    )
    assert row.examples == [SIZES[piece] for piece in [11, 0, 4, 2, 6, 1, 8, 9, 3, 10, 7, 5]]


def test_pieces_divide_one_order_whoever_does_them() -> None:
    """The parts of two clients that do different pieces of a shard are together what one does that has them all."""
    own = [np.concatenate(list(row_of([piece]).batches(EXAMPLES.__getitem__, size=3))) for piece in (9, 10, 11)]
    whole = np.concatenate(list(row_of([9, 10, 11]).batches(EXAMPLES.__getitem__, size=4)))
    np.testing.assert_array_equal(np.concatenate(own), whole)
    assert not np.array_equal(whole, EXAMPLES[3])


def test_what_is_begun_ends_with_the_deadline() -> None:
    row = row_of([0, 3, 9], progress=2)
    assert np.concatenate(list(row.batches(EXAMPLES.__getitem__, size=4))).size == SIZES[0] + SIZES[3]
    assert row.examples == [SIZES[0], SIZES[3]]
    nothing = row_of([0, 3], progress=0)
    assert list(nothing.batches(EXAMPLES.__getitem__, size=4)) == [] and nothing.num_examples == 0


@pytest.mark.parametrize(("size", "pause"), [(1, 0.1), (9, 0.4)])
def test_a_budget_in_real_time_ends_the_row(size: int, pause: float) -> None:
    """Also where many pieces make a batch, which has to end in time with all that wait for it."""
    budget = Budget(ConfigRecord({BUDGET: 0.9}))
    row = RowOfShards(list(range(36)), PIECES, budget, seed_of=lambda shard: shard)
    for batch in row.batches(lambda shard: range(3), size=size):
        time.sleep(pause * batch.size / size)
    work, busy = budget.spent(len(row.examples))
    assert 2 <= len(row.examples) < 36 and work <= busy < 1.2


def test_batches_are_asked_for_once() -> None:
    row = row_of([0, 1])
    list(row.batches(EXAMPLES.__getitem__, size=4))
    with pytest.raises(ValueError, match="batches must be asked for once, with epochs= for more than one pass"):
        next(row.batches(EXAMPLES.__getitem__, size=4))


@pytest.mark.parametrize("examples", [np.ones(3), np.ones((2, 2), dtype=int), np.array([True, False])])
def test_examples_are_numbers(examples: Any) -> None:
    with pytest.raises(ValueError, match=r"^examples_of\(0\) must be a row of whole numbers"):
        next(row_of([0]).batches(lambda shard: examples, size=4))


@pytest.mark.parametrize(("size", "epochs", "named"), [(0, 1, "size"), (3, 0, "epochs"), (2.5, 1, "size")])
def test_batches_that_cannot_be(size: Any, epochs: Any, named: str) -> None:
    with pytest.raises(ValueError, match=f"^{named} must be"):
        next(row_of([0]).batches(EXAMPLES.__getitem__, size=size, epochs=epochs))


def planning(deadline: DeadlineRule | None = None, **options: Any) -> Planning:
    return Planning(
        load=2,
        decoder=as_decoder("auto", None),
        schedule="work-list",
        deadline=deadline or AutomaticDeadline(initial=6.0),
        in_a_row=True,
        **options,
    )


@pytest.mark.parametrize("sizes", [(2.0, 2.0, 2.0, 2.0), (3.0, 1.0, 5.0, 2.0)])
def test_decoded_rows_are_unbiased_over_places_and_arrivals(sizes: tuple[float, ...]) -> None:
    """All places of the shards of a block and all progress of its clients, each shard moving in a direction of its own.

    To 1e-12 for shards of one size; of others the sum over all shards is.
    """
    n_examples, n_shards, n_clients = np.array(sizes), len(sizes), 2
    fleet = build_fleet({"model": "log-normal", "clients": n_clients, "sigma": 0.8}, seed=3)
    state = RoundState(n_examples)
    plan = plan_round(state, range(n_clients), planning(timing=fleet))
    base = plan.base
    assert plan.in_a_row and base is not None and isinstance(plan.arrivals, ProgressArrivals)
    np.testing.assert_array_equal(base.code.interchangeable, np.zeros(n_shards))  # type: ignore[arg-type]
    way, start = np.diag(n_examples), {"w": np.zeros(n_shards)}
    mean, chance = np.zeros(n_shards), 0.0
    places = list(itertools.permutations(range(n_shards)))
    for one in places:
        decoder = base.with_places(np.array(one))
        code = decoder.code
        assert isinstance(code, WorkLists)
        now = replace(plan, decoder=decoder, code=code)
        lists = [code.shards_of(client) for client in range(n_clients)]
        for progress in itertools.product(*(range(own.size + 1) for own in lists)):
            probability = float(np.prod([p[k] for p, k in zip(plan.arrivals.progress_prob, progress, strict=True)]))
            chance += probability / len(places)
            if probability == 0.0:
                continue
            replies = {}
            for client, done in enumerate(progress):
                shards = lists[client][:done]
                end = {"w": way[shards].sum(axis=0)}
                own = n_examples[shards] / max(n_examples[shards].sum(), 1.0)
                rows = code.rows_after(client, done).tolist()
                parts = {row: ScaledDifference(end, start, part) for row, part in zip(rows, own.tolist(), strict=True)}
                replies[client] = CodedUpdate(parts, shards, n_examples[shards])
            _, outcome = finish_round(state, now, replies, arrays=start, learn=False)
            if outcome.update is not None:
                mean += probability / len(places) * outcome.update["w"]
    assert chance == pytest.approx(1.0, abs=1e-12)
    # Per shard: the strategy multiplies it by how many of them a client does.
    assert mean.sum() == pytest.approx(n_examples.sum() / n_shards, abs=1e-11)
    if len(set(sizes)) == 1:
        np.testing.assert_allclose(mean, n_examples / n_shards, rtol=0, atol=1e-11)


def test_all_holders_of_a_shard_count_and_share_its_weight() -> None:
    """Two clients that have both done everything, each in its own way: neither is a copy of the other."""
    state = RoundState(np.full(4, 2.0))
    fleet = build_fleet({"model": "log-normal", "clients": 2, "sigma": 0.0, "median": 0.01}, seed=3)
    plan = plan_round(state, range(2), planning(FixedDeadline(6.0), timing=fleet))
    code, start = plan.decoder.code, {"w": np.zeros(1)}
    assert isinstance(code, WorkLists) and plan.step == pytest.approx(4.0)
    replies = {}
    for client, moved in enumerate([8.0, 24.0]):
        rows = code.rows_after(client, 4).tolist()
        shares = {row: ScaledDifference({"w": np.array([moved])}, start, 0.25) for row in rows}
        replies[client] = CodedUpdate(shares, code.shards_of(client), np.full(4, 2.0))
    _, outcome = finish_round(state, plan, replies, arrays=start)
    assert outcome.update is not None
    assert float(outcome.update["w"][0]) * plan.step == pytest.approx(16.0)
    assert outcome.model_residual_error == pytest.approx(0.0, abs=1e-20)
    # What running statistics are divided by: with everybody there the step is the mean of the clients.
    assert outcome.total_weight * plan.step == pytest.approx(1.0)


def test_a_reply_is_divided_among_its_shards_by_their_examples() -> None:
    arrays = {"w": np.ones(3)}
    code = WorkLists([[[2], [0], [1]], [[1], [2], [0]]], n_shards=3)
    task = ClientTask.of(code, 0, in_a_row=True)
    said = {"shard-ids": [2, 0], "shard-examples": [6, 2], "work-seconds": 3.0, "busy-seconds": 4.0}
    content = RecordDict(
        {
            "arrays": ArrayRecord({"w": Array(np.full(3, 5.0))}),
            "metrics": MetricRecord({"num-examples": 8}),
            RECORD: ConfigRecord(said),  # type: ignore[arg-type]
        }
    )
    read = []

    def main(grid: Grid, context: Context) -> None:  # within a run, so that Flower knows who sends it
        message = Message(content, dst_node_id=FIRST_NODE_ID, message_type="train")
        read.append(read_reply(message, arrays, task, np.full(3, np.nan))[0])

    run_virtual(main, row_app(), steady(2), num_shards=3)
    update = read[0]
    rows = code.rows_after(0, 2).tolist()
    assert [update.sums[row]["w"].tolist() for row in rows] == [[3.0] * 3, [1.0] * 3]
    assert (update.work_seconds, update.busy_seconds) == (3.0, 4.0)


def test_coherence_is_learnt_of_single_shards() -> None:
    """Of means over several the shared part stays, and the rest is as many times smaller."""
    rng = np.random.default_rng(5)
    counts, dim, shared = np.array([1, 2, 4, 8] * 50), 400, 0.3
    common = rng.normal(size=dim)
    common *= np.sqrt(shared) / np.linalg.norm(common)
    rows = [common + np.sqrt((1.0 - shared) / dim / n) * rng.normal(size=dim) for n in counts]
    energies, total = [float(row @ row) for row in rows], np.sum(rows, axis=0)
    found = CoherenceEstimate().update_from_rows(energies, float(total @ total), counts)
    assert found.energy == pytest.approx(1.0, rel=0.05)
    assert found.overlap / found.energy == pytest.approx(shared, rel=0.05)
    assert CoherenceEstimate().update(energies, float(total @ total)).energy < 0.8


def test_one_client_that_hardly_moves_leaves_the_coherence_of_the_others() -> None:
    assert CoherenceEstimate().update_from_rows([0.0, 1.0, 1.0, 1.0], 6.0, [4] * 4).overlap == pytest.approx(0.25)
    before = CoherenceEstimate().update([1.0, 1.0], 3.0)
    assert before.update_from_rows([np.inf, 1.0], np.inf, [2, 2]) is before


def test_shared_shards_are_no_overlap() -> None:
    """Of two rows of the same shards the second one's likeness to the first says nothing of other shards."""
    state = RoundState(np.full(4, 2.0))
    fleet = build_fleet({"model": "log-normal", "clients": 2, "sigma": 0.0, "median": 0.01}, seed=3)
    plan = plan_round(state, range(2), planning(FixedDeadline(6.0), timing=fleet))
    code, start = plan.decoder.code, {"w": np.zeros(3)}
    assert isinstance(code, WorkLists)
    fold = RoundFold(state, plan, start)
    for client in range(2):
        end, rows = {"w": np.array([1.0, 2.0, 2.0])}, code.rows_after(client, 4).tolist()
        shares: dict[int, Any] = {row: ScaledDifference(end, start, 0.25) for row in rows}
        fold.add(client, CodedUpdate(shares, code.shards_of(client), np.full(4, 2.0)))
    assert fold.energies == [9.0 / 64.0] and fold.averaged == [4.0] and fold.copies.disagreements == []


def row_app(n_shards: int = 4, pieces: int = PIECES) -> ClientApp:
    """Training of which every example moves the bias by one, and the weight by what it is."""
    app = ClientApp()

    @app.train()
    @coded_in_a_row(num_shards=n_shards, pieces=pieces)
    def train_row(row: RowOfShards, arrays: ArrayRecord, config: ConfigRecord) -> ShardUpdate:
        values = {name: array.numpy().copy() for name, array in arrays.items()}
        for batch in row.batches(EXAMPLES.__getitem__, size=4):
            values["bias"] += batch.size
            values["weight"] += batch.sum()
        return ShardUpdate(row.num_examples, values, metrics={"loss": 1.0})

    return app


@pytest.mark.parametrize("load", [1, 2])
def test_without_stragglers_the_step_is_that_of_the_mean_client(load: int) -> None:
    """As FedAvg's over clients that count alike: the sum of all that they have moved by, over their number."""
    strategy = GradientCoding(
        FedAvg(**INNER),
        num_shards=12,
        deadline=1e4,
        load=load,
        schedule="work-list",
        in_a_row=True,
        early_end=False,
        decoder="optimal-unbiased",
        shard_examples=SIZES,
        timing=steady(2),
    )
    result, _ = train(strategy, steady(2), app=row_app())
    moved = {name: result.arrays[name].numpy() - array.numpy() for name, array in initial_arrays().items()}
    examples, plan = np.concatenate(EXAMPLES), strategy.state.plan
    assert (
        plan is not None and plan.code.n_clients == load
    )  # one can do it all: with a single holder the other stays out
    # Two holders have both done all of it.
    np.testing.assert_allclose(moved["bias"], examples.size, rtol=1e-6)
    np.testing.assert_allclose(moved["weight"], examples.sum(), rtol=1e-6)
    assert strategy.history[0].disagreements == ()


def test_a_strategy_around_it_gets_what_it_would_decode_itself() -> None:
    """Privacy of which nothing is left, without noise and with a bound that nobody reaches, changes nothing."""
    ends = []
    for wrapped in (False, True):
        coded = GradientCoding(
            FedAvg(**INNER),
            num_shards=12,
            deadline=100.0,
            schedule="work-list",
            in_a_row=True,
            early_end=False,
            shard_examples=SIZES,
        )
        outer = DifferentialPrivacyServerSideFixedClipping(
            coded, noise_multiplier=0.0, clipping_norm=1e9, num_sampled_clients=2
        )

        def main(grid: Grid, context: Context, coded: GradientCoding = coded, outer: Strategy | None = outer) -> None:
            strategy, own = (outer, coded.deadline_grid(grid)) if outer is not None else (coded, grid)
            result = strategy.start(own, initial_arrays(), num_rounds=2, timeout=1e5)
            ends.append(np.concatenate([array.numpy().ravel() for array in result.arrays.values()]))

        run_virtual(partial(main, outer=outer if wrapped else None), row_app(), steady(2), num_shards=12)
    np.testing.assert_allclose(ends[1], ends[0], rtol=1e-6)
    assert np.abs(ends[0]).min() > 1.0


def test_apart_and_in_a_row_are_not_mixed_up() -> None:
    options: dict[str, Any] = {"deadline": 1e4, "schedule": "work-list", "timing": steady(2)}
    apart = GradientCoding(FedAvg(**INNER), num_shards=12, shard_examples=SIZES, **options)
    _, run = train(apart, steady(2), app=row_app())
    assert {event.kind for event in run.trace} >= {"failed"}
    details = {event.detail for event in run.trace if event.kind == "failed"}
    assert all("must be under gradient_coded, as the server's in_a_row is False" in detail for detail in details)
    row = GradientCoding(FedAvg(**INNER), num_shards=6, in_a_row=True, **options)
    _, run = train(row, steady(2), app=shard_app())
    details = {event.detail for event in run.trace if event.kind == "failed"}
    assert details and all("must be under coded_in_a_row, as the server's in_a_row is True" in one for one in details)


def test_an_update_of_other_examples_than_the_rows_is_refused() -> None:
    app = ClientApp()

    @app.train()
    @coded_in_a_row(num_shards=4, pieces=PIECES)
    def train_row(row: RowOfShards, arrays: ArrayRecord, config: ConfigRecord) -> ShardUpdate:
        return ShardUpdate(5, arrays)

    strategy = GradientCoding(
        FedAvg(**INNER), num_shards=12, deadline=1e4, schedule="work-list", in_a_row=True, timing=steady(2)
    )
    _, run = train(strategy, steady(2), app=app)
    assert {event.detail.split("; ")[0] for event in run.trace if event.kind == "failed"} == {
        "ValueError: num_examples of the ShardUpdate must be the row's, 0"
    }


def test_a_plan_in_a_row_is_one_after_it_was_saved() -> None:
    fleet = build_fleet({"model": "log-normal", "clients": 3, "sigma": 0.8}, seed=3)
    ways = planning(timing=fleet)
    state = RoundState(np.ones(6))
    plan = plan_round(state, range(3), ways)
    state, _ = finish_round(state, plan, {}, arrays={"w": np.zeros(2)})
    back = state_from_tree(state_to_tree(state), ways, None)
    assert back.plan is not None and back.plan.in_a_row and back.plan.step == plan.step


@pytest.mark.parametrize("step", [0.3, 1.0, 2.0, 3.5])
@pytest.mark.parametrize("error", [0.0, 0.2, 1.5])
def test_what_a_longer_step_gains_is_that_of_a_smooth_loss(step: float, error: float) -> None:
    """``r (1 - r x (1 + eps) / 2)``, relative to a step without noise, of which x is the curvature."""
    curvature = 0.3
    sensitivity = curvature / (2.0 - curvature)
    gain = step * (1.0 - step * curvature * (1.0 + error) / 2.0) / (1.0 - curvature / 2.0)
    found = time_at_fixed_step(RoundForecast(10.0, 5.0, error, step=step), sensitivity)
    assert found == (pytest.approx(10.0 / gain, rel=1e-12) if gain > 0.0 else np.inf)


def test_no_step_takes_for_ever_and_twice_the_step_half_the_time() -> None:
    assert time_at_fixed_step(RoundForecast(10.0, 5.0, 0.2, step=0.0), 0.2) == np.inf
    assert time_to_target(RoundForecast(10.0, 5.0, 0.2, step=2.0)) == time_to_target(RoundForecast(10.0, 5.0, 0.2)) / 2
    assert time_to_target(RoundForecast(10.0, 5.0, 0.2, step=0.0)) == np.inf


def test_curvature_is_along_the_step() -> None:
    """The same turning seen in steps of one and told of steps of three is three times as much for those."""
    short, long = NoiseSensitivity(), NoiseSensitivity()
    for length in (1.0, 0.9, 0.81, 0.73, 0.66, 0.59):
        short = short.update([length, 0.0], error=0.0, step=1.0)
        long = long.update([length, 0.0], error=0.0, step=3.0)
    assert long.curvature == short.curvature  # seen at the step that is taken
    assert replace(short, step=3.0).turned / short.squared == pytest.approx(0.1, rel=0.05)
    grown = replace(short, step=3.0).curvature
    assert grown == pytest.approx((2 * 0.4 + 5 * 0.3) / 7, rel=0.05) and grown > short.curvature


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "schedule": ({"schedule": "full"}, "in_a_row must be False for schedule 'full'"),
    "redraw": ({"redraw": False}, "redraw must not be False with in_a_row"),
    "sums": ({"sums": "whole"}, "sums must be left out with in_a_row, whose clients send what they end with"),
    "code": ({"code": "uncoded"}, "in_a_row must be False for a code that says itself who holds what; got True"),
    "memory": ({"memory": True}, "memory must be left out with in_a_row, which leaves no update of a shard alone"),
    "bits": ({"bits": 8}, "bits must be left out with in_a_row, whose replies are whole models; got it"),
    "flag": ({"in_a_row": 1}, "in_a_row must be True or False; got 1"),
    "moment": ({"strategy": VarianceAwareFedAdam()}, "in_a_row must be False for a strategy with a second_moment"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_go_with_it_is_refused(name: str) -> None:
    options, message = BAD[name]
    given = {"schedule": "work-list", "in_a_row": True, **options}
    with pytest.raises(ValueError, match=message):
        GradientCoding(given.pop("strategy", FedAvg()), num_shards=12, deadline=1.0, **given)


RAW: dict[str, Any] = {
    "name": "In a row",
    "rounds": 4,
    "seeds": [1],
    "task": {"name": "digits", "shards": 8},
    "fleet": {"preset": "uneven", "clients": 4},
    "strategies": [
        {
            "kind": "gradient-coding",
            "label": "in a row",
            "deadline": 8.0,
            "schedule": "work-list",
            "in_a_row": True,
            "pieces": 3,
        }
    ],
}


def test_an_experiment_trains_in_a_row() -> None:
    rows = run_experiment(check_config(RAW))
    assert [row.round for row in rows] == [0, 1, 2, 3, 4]
    assert rows[-1].accuracy > rows[0].accuracy + 0.2
    assert rows[-1].seconds <= 32.0
    assert rows == run_experiment(check_config(RAW))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": {"name": "digits-conv", "shards": 8}}, "task.name must be 'digits' for strategies.0.in_a_row; got"),
        ({"schedule": "full"}, "strategies.0.in_a_row must be False for schedule 'full'"),
        ({"memory": True}, "strategies.0.memory must be left out with in_a_row"),
        ({"sums": "share"}, "strategies.0.sums must be left out with in_a_row"),
    ],
)
def test_an_experiment_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    top = {key: value for key, value in changes.items() if key in RAW}
    own = {key: value for key, value in changes.items() if key not in RAW}
    with pytest.raises(ConfigError, match=message):
        check_config({**RAW, **top, "strategies": [{**RAW["strategies"][0], **own}]})
