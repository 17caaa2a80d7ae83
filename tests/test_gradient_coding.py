"""The strategy on the embedded runtime, with real Flower messages throughout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.app import Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAdagrad, FedAdam, FedAvg, FedAvgM, FedProx, FedYogi, Strategy

from fedgc.coherence import KnownCoherence
from fedgc.deadline import AutomaticDeadline, QuantileDeadline
from fedgc.decoders import DECODERS
from fedgc.fleets import WorkDraw, build_fleet
from tests.apps import N_SHARDS, arrays_of, full_aggregate, initial_arrays, shard_app, steady, train
from tests.coding_cases import certain, coding


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
