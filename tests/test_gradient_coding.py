"""The strategy on the embedded runtime, with real Flower messages throughout."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fedgc.clients import ShardUpdate, gradient_coded
from fedgc.strategies import GradientCoding
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import (
    Bulyan,
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedProx,
    FedTrimmedAvg,
    FedYogi,
    Krum,
    MultiKrum,
    Strategy,
)

from fedgc.assignment import AssignmentConstraints
from fedgc.coherence import KnownCoherence
from fedgc.deadline import AutomaticDeadline, QuantileDeadline
from fedgc.decoders import DECODERS, FixedDecoder
from fedgc.errors import ConfigError
from fedgc.experiment.config import load_config
from fedgc.fleets import WorkDraw, build_fleet
from fedgc.reliability import ReliabilityPosterior
from fedgc.simulation import run_virtual
from tests.apps import (
    EXAMPLES,
    N_SHARDS,
    arrays_of,
    full_aggregate,
    initial_arrays,
    shard_app,
    steady,
    train,
    train_shard,
)


def coding(strategy: Strategy | None = None, **options: Any) -> GradientCoding:
    inner = strategy if strategy is not None else FedAvg(fraction_evaluate=0.0)
    return GradientCoding(inner, **{"num_shards": N_SHARDS, "deadline": 10.0, "shard_examples": EXAMPLES, **options})


def certain() -> Any:
    """A posterior that is (nearly) sure of every client, so that a complete round decodes to the exact aggregate."""
    return ReliabilityPosterior(prior_arrivals=1e15, prior_misses=1e-6)


@pytest.mark.parametrize("decoder", [name for name, kind in DECODERS.items() if kind.unbiased])
@pytest.mark.parametrize("load", [1, 2, 3, 6])
def test_complete_rounds_equal_fedavg(decoder: str, load: int) -> None:
    plain, _ = train(FedAvg(fraction_evaluate=0.0), steady(), rounds=3)
    coded, _ = train(coding(decoder=decoder, load=load, reliability=certain()), steady(), rounds=3)
    for name, value in arrays_of(plain.arrays).items():
        # FedAvg averages float32 biases in float32; the weights are float64 all the way.
        tolerance = 1e-6 if value.dtype == np.float32 else 1e-12
        np.testing.assert_allclose(arrays_of(coded.arrays)[name], value, atol=tolerance)
        assert arrays_of(coded.arrays)[name].dtype == value.dtype
    np.testing.assert_allclose(
        coded.train_metrics_clientapp[1]["loss"], plain.train_metrics_clientapp[1]["loss"], rtol=1e-12
    )


def test_first_round_is_the_exact_aggregate() -> None:
    result, _ = train(coding(reliability=certain()), steady())
    start, expected = arrays_of(initial_arrays()), full_aggregate(initial_arrays())
    np.testing.assert_allclose(arrays_of(result.arrays)["weight"], start["weight"] + expected["weight"], atol=1e-12)


@pytest.mark.parametrize(
    "make",
    [
        FedAvg,
        lambda **k: FedAvgM(server_learning_rate=0.7, server_momentum=0.8, **k),
        FedAdam,
        FedYogi,
        FedAdagrad,
        lambda **k: FedProx(proximal_mu=0.1, **k),
    ],
    ids=["FedAvg", "FedAvgM", "FedAdam", "FedYogi", "FedAdagrad", "FedProx"],
)
@pytest.mark.parametrize(
    "options",
    [{}, {"schedule": "work-list", "timing": steady(), "coherence": KnownCoherence()}],
    ids=["blocks", "work lists"],
)
def test_any_inner_strategy_takes_the_step_it_would_take_on_the_exact_aggregate(
    make: Callable[..., Strategy], options: dict[str, Any]
) -> None:
    plain, _ = train(make(fraction_evaluate=0.0), steady(), rounds=4)
    coded, _ = train(coding(make(fraction_evaluate=0.0), reliability=certain(), **options), steady(), rounds=4)
    moved = [np.abs(v - arrays_of(initial_arrays())[n]).max() for n, v in arrays_of(plain.arrays).items()]
    assert min(moved) > 0.02
    for name, value in arrays_of(plain.arrays).items():
        np.testing.assert_allclose(arrays_of(coded.arrays)[name], value, atol=1e-6)


@pytest.mark.parametrize("inner", [FedAvg, FedAdam, FedAvgM])
def test_metrics_are_aggregated_over_the_clients_that_count(inner: type[FedAvg]) -> None:
    """Shards report their numbers, so that a client has the mean of its block's two; one client's cannot be used."""
    told: list[list[dict[str, Any]]] = []

    def aggregate(records: list[RecordDict], weighted_by: str) -> MetricRecord:
        assert weighted_by == "num-examples"
        assert all(list(record) == ["metrics"] for record in records)
        told.append([dict(record.metric_records["metrics"]) for record in records])
        return MetricRecord({"worst": max(one["loss"] for one in told[-1]), "of": len(records)})

    def spoil(reply: Message, partition: int) -> None:
        if partition == 5:
            reply.content.metric_records["metrics"]["loss"] = float("nan")

    inside = inner(fraction_evaluate=0.0, train_metrics_aggr_fn=aggregate)
    result, _ = train(coding(inside, early_end=False), steady(), rounds=2, app=shard_app(spoil))
    mean_of = {3 + 1: 1 / 4, 4 + 1: (2 * 4 + 3 * 1) / 5, 5 + 9: (4 * 5 + 5 * 9) / 14}
    for records in told:
        assert len(records) == 5
        assert all(one["loss"] == pytest.approx(mean_of[one["num-examples"]]) for one in records)
    for metrics in result.train_metrics_clientapp.values():
        assert metrics["worst"] == pytest.approx(65 / 14) and metrics["of"] == 5
    assert inside.train_metrics_aggr_fn is aggregate


@pytest.mark.parametrize("decoder", DECODERS)
def test_does_not_wait_for_stragglers(decoder: str) -> None:
    fleet = steady(median=[1.0, 1.0, 1.0, 1.0, 1.0, 500.0])
    strategy = coding(decoder=decoder, early_end=False)
    _, run = train(strategy, fleet, rounds=4)
    assert run.seconds == 40.0
    assert [report.n_arrived for report in strategy.history] == [5, 5, 5, 5]
    last = strategy.history[-1].straggle_prob
    assert last[5] > 0.6
    assert (last[:5] < 0.3).all()


def test_ends_early_once_everyone_has_come() -> None:
    fleet = steady(median=[1.0, 1.0, 1.0, 1.0, 1.0, 1.5])
    _, run = train(coding(load=2, early_end=False), fleet, rounds=2)
    assert run.seconds == 6.0  # two shards each, at up to 1.5 seconds


def test_ends_early_once_every_block_has_come() -> None:
    fleet = steady(median=[1.0, 1.0, 1.0, 1.0, 1.0, 500.0])
    strategy, patient = coding(load=2), coding(load=2, early_end=False)
    _, run = train(strategy, fleet, rounds=4)
    waited, _ = train(patient, fleet, rounds=1)
    assert run.seconds == 8.0
    # The first round decodes to the same whichever copy of a block is missing.
    first, _ = train(coding(load=2), fleet)
    for name, value in arrays_of(waited.arrays).items():
        np.testing.assert_allclose(arrays_of(first.arrays)[name], value, atol=1e-6)
    # Who was silent when a round ended has not been seen to miss, and not to come either.
    last = strategy.history[-1].straggle_prob
    assert last[:5].max() < last[5] < 0.9


@pytest.mark.parametrize("sums", ["shard", "share", "whole"])
def test_work_lists_count_what_is_done_by_the_deadline(sums: str) -> None:
    """Five quick clients and one that never gets anything done: backup work covers for it."""
    fleet = steady(median=[1.0, 1.0, 1.0, 1.0, 1.0, 500.0])
    strategy = coding(load=2, schedule="work-list", sums=sums, deadline=3.5)
    _, run = train(strategy, fleet, rounds=8)
    assert run.seconds <= 8 * 3.5 + 1e-9
    last = strategy.history[-1]
    assert last.rejected == {}
    assert last.n_arrived == 5
    assert last.model_residual_error < 0.05


def test_a_complete_round_of_work_lists_equals_fedavg() -> None:
    """Steady clients that always finish: once that is known, the decoded update is the exact one."""
    plain, _ = train(FedAvg(fraction_evaluate=0.0), steady(), rounds=1)
    arrays = arrays_of(plain.arrays)
    strategy = coding(load=1, schedule="work-list", deadline=50.0, decoder="least-squares")
    coded, _ = train(strategy, steady(), rounds=1)
    for name, value in arrays.items():
        np.testing.assert_allclose(arrays_of(coded.arrays)[name], value, atol=1e-6)


@pytest.mark.parametrize("initial", [3.0, 60.0, 300.0])
def test_an_automatic_deadline_finds_what_a_cover_needs(initial: float) -> None:
    fleet = steady(median=[1.0, 1.2, 0.8, 1.0, 1.1, 0.9])
    strategy = coding(load=2, schedule="work-list", deadline=AutomaticDeadline(initial=initial, cover=True))
    train(strategy, fleet, rounds=12)
    assert strategy.history[0].deadline == initial
    # The slowest takes 1.2 s for its own shard: by then all have done theirs, and nothing is gained by waiting longer.
    # How much sooner the last of them might do is not known to more than some per cent.
    assert 1.0 <= strategy.history[-1].deadline <= 1.5
    assert 1.0 <= (strategy.history[-1].seconds or 0.0) <= 1.5
    assert strategy.history[-1].shards_recovered >= N_SHARDS - 1


def test_a_quantile_deadline_drops_the_slow_ones() -> None:
    fleet = steady(median=[1.0, 1.0, 1.0, 1.0, 1.0, 30.0])
    strategy = coding(load=1, deadline=QuantileDeadline(0.7, initial=40.0), early_end=False)
    train(strategy, fleet, rounds=10)
    assert 0.9 < strategy.history[-1].deadline < 15.0


def test_a_round_without_arrivals_leaves_the_model_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    class Sometimes(type(steady())):  # type: ignore[misc]
        def draw(self, client: int, server_round: int, **_: object) -> WorkDraw:
            return WorkDraw(1.0, 0.0, np.inf if server_round == 2 else 0.0)

    fleet = steady()
    fleet.__class__ = Sometimes
    strategy = coding()
    evaluated = []
    inner = strategy.aggregate_train
    strategy.aggregate_train = lambda r, replies: evaluated.append(inner(r, replies)) or evaluated[-1]  # type: ignore
    result, run = train(strategy, fleet, rounds=3)
    assert [arrays is None for arrays, _ in evaluated] == [True, False, True]
    assert run.seconds == 21.0
    np.testing.assert_array_equal(arrays_of(result.arrays)["bias"], arrays_of(evaluated[1][0])["bias"])
    assert "nothing arrived by the deadline, the model stays as it is" in caplog.text


def test_messages_carry_assignment_round_and_time_to_live() -> None:
    sent: list[Message] = []

    def watch(grid: Grid) -> None:
        push = grid.push_messages
        grid.push_messages = lambda messages: push(sent.extend(batch := list(messages)) or batch)  # type: ignore

    train(coding(FedProx(proximal_mu=0.3, fraction_evaluate=0.0), load=2), steady(), on_grid=watch)
    assert [message.content["fedgc"]["shard-ids"] for message in sent] == [[0, 1], [2, 3], [4, 5]] * 2
    assert all(message.content["fedgc"]["coefficients"] == [1.0, 1.0] for message in sent)
    assert all(message.content["config"]["server-round"] == 1 for message in sent)
    assert all(message.content["config"]["proximal-mu"] == 0.3 for message in sent)
    assert all(message.metadata.ttl == 20.0 for message in sent)
    assert len({id(message.content["config"]) for message in sent}) == len(sent)


def test_sampling_of_the_inner_strategy_is_kept() -> None:
    strategy = coding(FedAvg(fraction_train=0.5, fraction_evaluate=0.0), load=3)
    train(strategy, steady(), rounds=3)
    assert [(report.n_clients, report.n_arrived) for report in strategy.history] == [(3, 3)] * 3


def test_evaluation_is_the_inner_strategys_and_has_its_own_limit() -> None:
    result, run = train(coding(FedAvg(), deadline=0.5), steady(overhead=30.0), rounds=1)
    assert result.evaluate_metrics_clientapp[1]["loss"] == pytest.approx(0.5)
    assert run.seconds == 30.5


def test_first_deadline_is_not_evidence() -> None:
    strategy = coding(first_deadline=50.0, deadline=1.0)
    _, run = train(strategy, steady(median=7.0), rounds=2)
    assert [report.n_arrived for report in strategy.history] == [6, 0]
    assert run.seconds == 15.0
    np.testing.assert_allclose(strategy.history[1].straggle_prob, 0.5)


def test_same_seed_same_run() -> None:
    def once() -> tuple[Any, ...]:
        strategy = coding()
        result, run = train(strategy, build_fleet({"preset": "phones", "clients": 6}, seed=4), rounds=6)
        return run.trace, {k: v.tobytes() for k, v in arrays_of(result.arrays).items()}

    assert once() == once()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"deadline": 0}, r"deadline must be a finite number above 0; got 0"),
        ({"deadline": float("nan")}, r"deadline must be a finite number above 0; got nan"),
        ({"first_deadline": -1.0}, r"first_deadline must be a finite number above 0; got -1.0"),
        ({"num_shards": 0}, r"num_shards must be an integer of at least 1; got 0"),
        ({"load": 1.5}, r"load must be an integer of at least 1; got 1.5"),
        ({"decoder": "best"}, r"decoder must be one of first-arrival, fixed, .*; got 'best'"),
        ({"shard_examples": [1, 2]}, r"shard_examples must have shape \(6,\); got shape \(2,\)"),
        ({"shard_examples": [1, 2, 3, 4, 5, -6]}, r"shard_examples must lie in \[0, inf\); got -6 for shard 5"),
        ({"reassignment_gain": "x"}, r"reassignment_gain must lie in \[0, 1\]; got 'x'"),
        ({"reliability": 3}, r"reliability must be a ReliabilityPosterior; got 3"),
        ({"shard_examples": [1.5] * 6}, r"shard_examples must be integers, not all 0; got \[1.5"),
        ({"strategy": 3}, r"strategy must be a Flower Strategy; got 3"),
        (
            {"strategy": FedAdam(weighted_by_key="tokens")},
            "weighted_by_key of the strategy must be 'num-examples': .* as num_examples of their .*; got 'tokens'",
        ),
        ({"decoder": 3}, r"decoder must be a name or a Decoder; got 3"),
        ({"shard_examples": [0] * 6}, r"shard_examples must be integers, not all 0; got \[0, 0"),
        ({"reassignment_gain": 2.0}, r"reassignment_gain must lie in \[0, 1\]; got 2.0"),
        ({"resume": True}, "resume needs checkpoints, the folder to go on from; got True and no folder"),
        ({"resume": "yes"}, "resume must be True or False; got 'yes'"),
        ({"early_end": "no"}, "early_end must be True or False; got 'no'"),
        ({"sums": "shard"}, "sums must be left out for schedule 'full', .*; got 'shard'"),
        ({"redraw": True}, "redraw must be left out for schedule 'full', .*; got True"),
        ({"fetch_seconds": 0.0}, "fetch_seconds must be left out for schedule 'full', .*; got 0.0"),
        ({"schedule": "work-list", "sums": "all"}, "sums must be one of shard, share, whole; got 'all'"),
        ({"schedule": "work-list", "redraw": 1}, "redraw must be True, False or None; got 1"),
        ({"timing": "x"}, "timing must be a Timing, a fleet say; got 'x'"),
        ({"coherence": 0.5}, "coherence must be a CoherenceEstimate; got 0.5"),
        ({"constraints": {"storage": [1]}}, "constraints must be AssignmentConstraints; got {'storage': "),
        ({"seed": -1}, r"seed must be an integer of at least 0; got -1"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        GradientCoding(**{"num_shards": N_SHARDS, "deadline": 10.0, "shard_examples": EXAMPLES, **options})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("schedule", ["full", "work-list"])
def test_more_copies_than_nodes_are_said_once(schedule: str, caplog: pytest.LogCaptureFixture) -> None:
    strategy = coding(load=7, schedule=schedule, reliability=certain())
    train(strategy, steady(), rounds=2)
    assert caplog.text.count("round 1: load is 7, but only 6 nodes are there: every shard has as many holders") == 1
    assert caplog.text.count("load is 7") == 1
    assert strategy.history[0].shards_recovered == N_SHARDS
    caplog.clear()
    train(coding(load=6, schedule=schedule), steady(), rounds=2)
    assert "load is" not in caplog.text


@pytest.mark.parametrize(("told", "run_config"), [(40, {}), (None, {"num-shards": 40}), (N_SHARDS, {"num-shards": 40})])
def test_clients_for_another_number_of_shards_are_named_once(
    told: int | None, run_config: dict[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    app, server = ClientApp(), ServerApp()
    app.train()(gradient_coded(num_shards=told)(train_shard))

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        coding().start(grid, initial_arrays(), num_rounds=3)

    run_virtual(server, app, steady(), run_config=run_config)
    line = (
        "round 1: num_shards is 40 in gradient_coded (or the run config) of nodes 100, 101, 102, 103, 104 and 1 more, "
        "and 6 in GradientCoding"
    )
    assert caplog.text.count(line) == (told != N_SHARDS)
    assert caplog.text.count("num_shards is") == (told != N_SHARDS)


@pytest.mark.parametrize("schedule", ["full", "work-list"])
@pytest.mark.parametrize(
    ("limits", "load"),
    [
        (AssignmentConstraints(storage=[1, 2, 6, 6, 6, 6]), 2),
        (AssignmentConstraints(residency={0: [1, 4], 1: [1, 4], 5: [2, 3, 4]}), 2),
        (AssignmentConstraints(domain=["a", "a", "a", "b", "b", "c"]), 2),
        (AssignmentConstraints(computation=[6, 1, 6, 2, 6, 6]), 2),
        (AssignmentConstraints(storage=[3, 3, 3, 3, 3, 3], domain=["a", "b", "c", "a", "b", "c"]), 3),
    ],
)
def test_limits_hold_in_every_round(schedule: str, limits: AssignmentConstraints, load: int) -> None:
    """While clients straggle, blocks are formed anew and what is learnt of the clients changes."""
    held: list[dict[int, set[int]]] = []
    original = GradientCoding.configure_train

    def noting(self: GradientCoding, *arguments: Any) -> Any:
        messages = list(original(self, *arguments))
        records = {m.metadata.dst_node_id: m.content.config_records["fedgc"]["shard-ids"] for m in messages}
        held.append({node - 100: set(shards) for node, shards in records.items()})  # type: ignore[arg-type]
        return messages

    rule = AutomaticDeadline(initial=10.0)
    strategy = coding(load=load, schedule=schedule, constraints=limits, deadline=rule, reassignment_gain=0.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GradientCoding, "configure_train", noting)
        train(strategy, build_fleet({"preset": "phones", "clients": 6}, seed=4), rounds=12)
    assert len(held) == 12
    for shards_of in held:
        assert set().union(*shards_of.values()) == set(range(N_SHARDS))
        for shard in range(N_SHARDS):
            holders = [client for client, shards in shards_of.items() if shard in shards]
            assert len(holders) >= (load if schedule == "full" else 1)
            if limits.residency is not None:
                assert set(holders) <= set(limits.residency.get(shard, range(6)))  # type: ignore[union-attr]
            if limits.domain is not None:
                assert len({limits.domain[client] for client in holders}) == len(holders)
        for name in ("storage", "computation"):
            if (most := getattr(limits, name)) is not None:
                assert all(len(shards) <= most[client] for client, shards in shards_of.items())


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"storage": [1] * 6}, "storage must hold at least 12 shards in all; got 6"),
        ({"residency": {3: [2]}}, "residency must allow at least 2 clients for every shard; got 1 for shard 3"),
        ({"domain": ["a"] * 6}, "domain must name at least 2 different domains, one for each holder; got 1"),
        ({"storage": [6] * 5}, "storage must have one entry per client, 6; got 5"),
    ],
)
def test_limits_that_cannot_be_met_are_refused_by_name(limits: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        train(coding(constraints=AssignmentConstraints(**limits)), steady(), rounds=1)
    assert "\n" not in str(caught.value)


def test_summary_and_defaults(caplog: pytest.LogCaptureFixture) -> None:
    strategy = GradientCoding(num_shards=4, deadline=5.0, decoder=FixedDecoder())
    assert isinstance(strategy.strategy, FedAvg)
    caplog.set_level(logging.INFO)
    strategy.summary()
    assert "Decoder: fixed" in caplog.text
    assert "Deadline: 5 s" in caplog.text


def test_integer_arrays_are_averaged_too() -> None:
    """Counters, as batch normalisation has them."""
    app = ClientApp()

    @app.train()
    @gradient_coded(num_shards=N_SHARDS)
    def trainer(shard_id: int, arrays: ArrayRecord, config: ConfigRecord) -> ShardUpdate:
        after = {name: array.numpy() for name, array in arrays.items()}
        after["steps"] = after["steps"] + 7
        return ShardUpdate(EXAMPLES[shard_id], arrays=after)

    results = []

    def main(grid: Grid, context: Context) -> None:
        start = ArrayRecord({"steps": Array(np.array(5)), "w": Array(np.zeros(2))})
        results.append(coding(reliability=certain()).start(grid, start, num_rounds=1))

    server = ServerApp()
    server.main()(main)
    run_virtual(server, app, steady())
    assert arrays_of(results[0].arrays)["steps"] == 12


def test_half_precision_survives_large_shards() -> None:
    """Weighted by thousands of examples, half-precision updates would overflow in their own dtype."""
    app = ClientApp()

    @app.train()
    @gradient_coded(num_shards=N_SHARDS)
    def trainer(shard_id: int, arrays: ArrayRecord, config: ConfigRecord) -> ShardUpdate:
        return ShardUpdate(5000, delta={"w": np.full(2, 20.0, dtype=np.float16)})

    results = []

    def main(grid: Grid, context: Context) -> None:
        strategy = coding(shard_examples=[5000] * N_SHARDS, reliability=certain())
        start = ArrayRecord({"w": Array(np.zeros(2, dtype=np.float16))})
        results.append(strategy.start(grid, start, num_rounds=3))

    server = ServerApp()
    server.main()(main)
    run_virtual(server, app, steady())
    np.testing.assert_array_equal(arrays_of(results[0].arrays)["w"], np.full(2, 60.0, dtype=np.float16))


def test_flags_are_arrays_too() -> None:
    app = ClientApp()

    @app.train()
    @gradient_coded(num_shards=N_SHARDS)
    def trainer(shard_id: int, arrays: ArrayRecord, config: ConfigRecord) -> ShardUpdate:
        return ShardUpdate(EXAMPLES[shard_id], arrays={"on": np.array([True, False]), "w": np.ones(1)})

    strategy = coding(reliability=certain())

    def main(grid: Grid, context: Context) -> None:
        start = ArrayRecord({"on": Array(np.array([False, False])), "w": Array(np.zeros(1))})
        strategy.start(grid, start, num_rounds=1)

    server = ServerApp()
    server.main()(main)
    run_virtual(server, app, steady())
    assert strategy.history[0].n_arrived == 6


def app_with(**keys: str) -> ClientApp:
    app = ClientApp()
    app.train()(gradient_coded(num_shards=N_SHARDS, **keys)(train_shard))
    return app


def test_records_have_the_names_that_the_inner_strategy_gives_them() -> None:
    inner = FedAvg(fraction_evaluate=0.0, arrayrecord_key="weights", configrecord_key="told")
    clients = app_with(arrayrecord_key="weights", configrecord_key="told")
    models = []
    for within, app in ((inner, clients), (None, app_with())):
        strategy = coding(within, reliability=certain(), deadline=50.0)
        result, _ = train(strategy, steady(), app=app)
        assert strategy.history[0].n_arrived == 6
        models.append(arrays_of(result.arrays))
    for name, value in models[1].items():
        np.testing.assert_array_equal(models[0][name], value)
    wrong = coding(inner, deadline=50.0)
    train(wrong, steady(), app=app_with())
    assert "arrayrecord_key must name a record of the message" in next(iter(wrong.history[0].rejected.values()))


class Around(FedAvg):
    """A strategy around another, as Flower's are, with a name of its own that it does not use."""

    def __init__(self, strategy: Strategy) -> None:
        super().__init__(arrayrecord_key="unused")
        self.strategy = strategy


def test_names_of_records_that_are_not_the_inner_strategys_are_refused() -> None:
    inner = Around(FedAvg(arrayrecord_key="weights"))
    assert coding(inner).arrayrecord_key == coding(inner, arrayrecord_key="weights").arrayrecord_key == "weights"
    with pytest.raises(ValueError, match=r"arrayrecord_key must be left out, or be that .*, 'weights'; got 'arrays'"):
        coding(inner, arrayrecord_key="arrays")
    with pytest.raises(ValueError, match=r"configrecord_key must be left out, or be .*, 'config'; got 'told'"):
        coding(inner, configrecord_key="told")


COMPARING = [Krum, MultiKrum, FedMedian, FedTrimmedAvg]


@pytest.mark.parametrize("kind", [FedAvg, *COMPARING])
def test_a_strategy_that_compares_clients_is_warned_of_and_changes_nothing(
    kind: type[FedAvg], caplog: pytest.LogCaptureFixture
) -> None:
    models = []
    for inner in (kind(fraction_evaluate=0.0), FedAvg(fraction_evaluate=0.0)):
        result, _ = train(coding(inner, reliability=certain(), deadline=50.0), steady(), rounds=2)
        models.append(arrays_of(result.arrays))
    for name, value in models[1].items():
        np.testing.assert_array_equal(models[0][name], value)
    assert caplog.text.count(f"{kind.__name__} compares clients, and gets one") == (kind in COMPARING)


def test_a_strategy_that_makes_nothing_of_one_reply_is_refused() -> None:
    for inner in (Bulyan(), Around(Bulyan())):
        with pytest.raises(ValueError, match="Bulyan makes none of a single one"):
            coding(inner)


ABLE = "fixed, least-squares, normalised-sum, optimal-unbiased, partial-mean, sum"
SMALLEST = Path(__file__).parents[1] / "experiments" / "smallest.toml"
WHOLE_UPDATES_ONLY = ["fixed-aligned", "fixed-general", "inverse-probability", "first-arrival", "scaled-mean"]


@pytest.mark.parametrize("decoder", WHOLE_UPDATES_ONLY)
def test_a_decoder_of_whole_updates_is_refused_for_work_lists(decoder: str) -> None:
    """When the strategy is made, and not once the clients have warmed up."""
    told = f"decoder must be one of {ABLE} for schedule 'work-list', where clients do a part; got '{decoder}"
    for more in ({}, {"max_weight": 3.0}):
        with pytest.raises(ValueError, match=told):
            coding(schedule="work-list", decoder=decoder, **more)
    changes = [f'strategies.1.decoder="{decoder}"', 'strategies.1.schedule="work-list"']
    with pytest.raises(ConfigError, match=f"strategies.1.{told}"):
        load_config(SMALLEST, changes)
    load_config(SMALLEST, changes[:1])


@pytest.mark.parametrize("sums", ["whole", "share"])
def test_settled_weights_need_a_sum_for_every_shard_of_a_work_list(sums: str) -> None:
    told = f"sums must be 'shard' for decoder 'fixed' on work lists; got '{sums}'"
    with pytest.raises(ValueError, match=told):
        coding(schedule="work-list", decoder="fixed", sums=sums)
    changes = ['decoder="fixed"', 'schedule="work-list"', f'sums="{sums}"']
    with pytest.raises(ConfigError, match=f"strategies.1.{told}"):
        load_config(SMALLEST, [f"strategies.1.{change}" for change in changes])
