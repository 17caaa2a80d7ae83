"""What a client claims of itself in its first replies is held against the others' claims and the server's clock."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fedgc.clients import ShardUpdate, gradient_coded
from fedgc.strategies import GradientCoding
from flwr.app import ArrayRecord, ConfigRecord, Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg, Strategy

from fedgc.fleets import build_fleet
from fedgc.reliability import ReliabilityPosterior
from tests.apps import EXAMPLES, N_SHARDS, arrays_of, shard_app, steady, train

ABSURD = 10**9
LIAR = 1  # partition; its node id is 101


def coding(**options: Any) -> GradientCoding:
    inner = FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1)
    return GradientCoding(inner, **{"num_shards": N_SHARDS, "deadline": 10.0, **options})


class Plain(FedAvg):
    """Drives a strategy with Flower's own loop, which hands over all replies together."""

    def __init__(self, inner: Strategy) -> None:
        super().__init__(fraction_evaluate=0.0)
        self.inner = inner

    def configure_train(self, *args: Any) -> Any:
        return self.inner.configure_train(*args)

    def aggregate_train(self, *args: Any) -> Any:
        return self.inner.aggregate_train(*args)


def claim_sizes(examples: int) -> Callable[[Message, int], Message | None]:
    def spoil(reply: Message, partition: int) -> Message | None:
        if partition == LIAR:
            n_done = len(reply.content["fedgc"]["shard-ids"])
            reply.content["fedgc"]["shard-examples"] = [examples] * n_done
            reply.content["metrics"]["num-examples"] = examples * n_done
        return None

    return spoil


@pytest.mark.parametrize("together", [False, True], ids=["as they come", "all at once"])
@pytest.mark.parametrize("place", ["first", "last"])
@pytest.mark.parametrize(
    "options", [{"load": 1}, {"load": 2, "schedule": "work-list"}, {"load": 2, "memory": True}], ids=str
)
def test_absurd_sizes_are_refused_from_the_first_round_on(
    options: dict[str, Any], place: str, together: bool, caplog: pytest.LogCaptureFixture
) -> None:
    strategy = coding(early_end=False, **options)
    fleet = steady(median=[1.0 + 0.1 * k if k != LIAR else {"first": 0.5, "last": 1.9}[place] for k in range(6)])
    app = shard_app(claim_sizes(ABSURD))
    with caplog.at_level(logging.WARNING, logger="flwr"):
        result, _ = train(Plain(strategy) if together else strategy, fleet, app=app, rounds=3)
    assert [list(report.rejected) for report in strategy.history] == [[101]] * 3
    # Another holder of its shard may have told the size before.
    reason = strategy.history[0].rejected[101]
    assert re.fullmatch(r"examples of shard \d must be (at most 1e\+06|from 1 to \d+), as others.* 1e\+09", reason), (
        reason
    )
    if options["load"] == 1:
        assert reason.endswith("must be at most 1e+06, as others' sizes show; got 1e+09")
    assert "round 1: node 101 is left out: examples of shard " in caplog.text
    assert [report.n_arrived for report in strategy.history] == [5, 5, 5]
    known = strategy.state.shard_examples
    np.testing.assert_array_equal(known[np.isfinite(known)], np.array(EXAMPLES)[np.isfinite(known)])
    assert all(np.abs(value).max() < 100.0 for value in arrays_of(result.arrays).values())


def test_sizes_that_are_far_apart_are_believed() -> None:
    """The smallest comes first; nobody is left out for holding thousands of times as much."""
    sizes = [1, 20_000, 3, 150_000, 5, 900_000]
    app = ClientApp()

    @app.train()
    @gradient_coded(num_shards=N_SHARDS)
    def trainer(shard_id: int, arrays: ArrayRecord, config: ConfigRecord) -> ShardUpdate:
        return ShardUpdate(sizes[shard_id], delta={name: 0.0 * array.numpy() for name, array in arrays.items()})

    strategy = coding(load=1)
    train(strategy, steady(median=[1.0 + 0.1 * k for k in range(6)]), app=app, rounds=2)
    assert [report.rejected for report in strategy.history] == [{}, {}]
    assert strategy.state.shard_examples.tolist() == sizes


@pytest.mark.parametrize("clients", [1, 2])
def test_few_clients_do_not_wait_for_others_to_compare_with(clients: int) -> None:
    strategy = coding(load=1)
    _, run = train(strategy, steady(clients=clients), rounds=2)
    assert [report.n_arrived for report in strategy.history] == [clients] * 2
    assert run.seconds == 2 * N_SHARDS / clients


def test_a_silent_partner_keeps_the_only_reply_waiting_until_the_deadline_and_no_longer() -> None:
    strategy = coding(load=1)
    _, run = train(strategy, steady(clients=2, median=[1.0, 500.0]), rounds=2)
    assert [report.n_arrived for report in strategy.history] == [1, 1]
    assert strategy.history[0].shards_recovered == 3
    assert run.seconds == 20.0


@pytest.mark.parametrize("schedule", ["full", "work-list"])
def test_a_client_whose_clock_cannot_be_right_is_used_but_not_its_times(
    schedule: str, caplog: pytest.LogCaptureFixture
) -> None:
    def spoil(reply: Message, partition: int) -> Message | None:
        if partition == LIAR:
            reply.content["fedgc"]["busy-seconds"] = reply.content["fedgc"]["work-seconds"] = 1e9
        return None

    options = {"schedule": schedule, "load": 1, "shard_examples": EXAMPLES, "start_timeout": 50.0}
    spoiled, honest = coding(**options), coding(**options)
    fleet = steady(overhead=0.2)
    with caplog.at_level(logging.WARNING, logger="flwr"):
        train(spoiled, fleet, app=shard_app(spoil), rounds=4)
    train(honest, fleet, rounds=4)
    assert [report.n_arrived for report in spoiled.history] == [6] * 4
    why = "node 101's own times are not used: it says that it was busy for"
    assert f"start: {why} 1000000000.0 s of the " in caplog.text
    for server_round in range(1, 5):
        line = rf"round {server_round}: {why} 1e\+09 s of the [\d.]+ s to its reply"
        assert len(re.findall(line, caplog.text)) == 1
    assert caplog.text.count("own times are not used") == 5
    nodes = [100 + k for k in range(6)]
    for strategy in (spoiled, honest):
        seconds = strategy.state.completion_times.seconds_per_shard(nodes)
        np.testing.assert_allclose(seconds, 1.0, atol=0.25)
    assert max(report.deadline for report in spoiled.history) == 10.0


def test_late_replies_with_absurd_sizes_are_not_remembered() -> None:
    """The slow client takes 14 s where rounds last 10 s: its late reply would refresh the memory of its shard."""
    fleet = steady(median=[5.0] * 5 + [14.0])

    def spoil(reply: Message, partition: int) -> Message | None:
        if partition == 5:
            reply.content["fedgc"]["shard-examples"] = [ABSURD]
            reply.content["metrics"]["num-examples"] = ABSURD
        return None

    kept = {}
    for name, app in {"honest": shard_app(), "absurd": shard_app(spoil)}.items():
        # Its shard stays with it, where otherwise one who is in time would get it.
        strategy = coding(load=1, memory=True, reassignment_gain=1.0)
        train(strategy, fleet, app=app, rounds=4, backlog=True)
        assert strategy.state.memory is not None
        kept[name] = len(strategy.state.memory.updates)
    assert kept == {"honest": 6, "absurd": 5}


def one_everywhere(
    sizes: Callable[[int, int, int], int], delta: Callable[[int], float] = lambda shard: 1.0
) -> ClientApp:
    """An app whose updates are all one; `sizes` tells what a partition says of a shard in a round."""
    app = ClientApp()

    @app.train()
    @gradient_coded(num_shards=N_SHARDS)
    def trainer(shard_id: int, arrays: ArrayRecord, config: ConfigRecord, context: Context) -> ShardUpdate:
        size = sizes(int(context.node_config["partition-id"]), shard_id, int(config["server-round"]))
        return ShardUpdate(size, delta={name: np.full(array.shape, delta(shard_id)) for name, array in arrays.items()})

    return app


def moved(result: Any) -> float:
    return float(arrays_of(result.arrays)["bias"][0]) - 0.5


SCHEDULES = [
    {},
    {"schedule": "work-list"},
    {"schedule": "work-list", "sums": "share"},
    {"load": 3},
    {"memory": True},
    {"memory": True, "schedule": "work-list"},
    {"load": 1},
    {"decoder": "fixed"},
]


@pytest.mark.parametrize("options", SCHEDULES, ids=str)
@pytest.mark.parametrize("seed", [1, 2])
def test_updates_that_are_all_one_decode_to_one_whatever_sizes_are_said(options: dict[str, Any], seed: int) -> None:
    """Sizes of thousands, drawn anew by each client in each round."""

    def sizes(partition: int, shard: int, server_round: int) -> int:
        return int(10.0 ** np.random.default_rng([seed, partition, shard, server_round]).uniform(0.0, 5.0))

    # All come, and are sure to, so that all shards count alike, whatever their sizes: by times nobody is quite sure to.
    reliability = ReliabilityPosterior(prior_arrivals=1e15, prior_misses=1e-6)
    sure = {"reliability": reliability, "reassignment_gain": 1.0}
    strategy = coding(early_end=False, deadline=1e4, **sure, **{"load": 2, **options})
    result, _ = train(strategy, steady(4), app=one_everywhere(sizes), rounds=6)
    assert all(report.rejected == {} and report.n_arrived == 4 for report in strategy.history)
    counted = [report.coverage[0] for report in strategy.history]
    for report, count in zip(strategy.history, counted, strict=True):
        np.testing.assert_allclose(report.coverage, count, rtol=1e-6)
    if "memory" in options:  # it makes up for what counts more than once, or less, with the update before: one, too
        counted[1:] = [1.0] * 5
    assert moved(result) == pytest.approx(sum(counted), rel=1e-5)
    assert sum(counted) == pytest.approx(6.0, abs=0.5)


@pytest.mark.parametrize("place", ["first", "last"])
@pytest.mark.parametrize("options", SCHEDULES[:6], ids=str)
def test_what_one_client_overstates_counts_for_one_round_and_at_most_ten_times(
    options: dict[str, Any], place: str
) -> None:
    factor, lied = 900, set()

    def sizes(partition: int, shard: int, server_round: int, *, lie: bool) -> int:
        if partition == LIAR and lie:
            lied.add(shard)
        return 1000 * (1 + shard) * (factor if partition == LIAR and lie else 1)

    def models(lie: bool) -> list[float]:
        fleet = steady(median=[1.0 + 0.1 * k if k != LIAR else {"first": 0.5, "last": 1.9}[place] for k in range(6)])
        strategy, models = coding(early_end=False, deadline=30.0, **{"load": 2, **options}), [0.5]
        inner = strategy.aggregate_train

        def noting(*args: Any) -> Any:
            arrays, metrics = inner(*args)
            models.append(float(arrays["bias"].numpy()[0]))
            return arrays, metrics

        strategy.aggregate_train = noting  # type: ignore[method-assign]
        app = one_everywhere(lambda *of: sizes(*of, lie=lie), delta=lambda shard: float(shard % 2))
        train(strategy, fleet, app=app, rounds=5)
        assert all(report.rejected == {} for report in strategy.history)
        assert strategy.state.shard_examples.tolist() == [1000.0 * (1 + shard) for shard in range(N_SHARDS)]
        # An update of the aggregate's own length in units of how often the shards count.
        return [float(step) for step in np.diff(models) / [report.coverage[0] for report in strategy.history]]

    honest, spoiled = models(lie=False), models(lie=True)
    # Updates lie between zero and one, and so does their mean, whatever the weights.
    assert all(-1e-6 <= step <= 1.0 + 1e-6 for step in spoiled)
    # With a memory of each shard, what has been rounded in the first round is small in the next one.
    np.testing.assert_allclose(spoiled[1:], honest[1:], atol=1e-3 if "memory" in options else 1e-6)
    weights = 1000.0 * (1.0 + np.arange(N_SHARDS))
    # What is typical may be what the first honest client holds, at most the largest shard.
    most = np.array([max(weight, 10.0 * 6000.0) if k in lied else weight for k, weight in enumerate(weights)])
    odd = np.arange(N_SHARDS) % 2 == 1
    low = weights[odd].sum() / (weights[odd].sum() + most[~odd].sum())
    high = most[odd].sum() / (most[odd].sum() + weights[~odd].sum())
    assert low - 1e-6 <= spoiled[0] <= high + 1e-6


@pytest.mark.parametrize("options", [{"schedule": "work-list"}, {}, {"load": 1}, {"memory": True}], ids=str)
@pytest.mark.parametrize("first", [0, 1, 3])
def test_a_first_word_that_is_wrong_stops_nobody(first: int, options: dict[str, Any]) -> None:
    """In the first round one client finds next to nothing in its folder; all shards have thousands of examples."""

    def sizes(partition: int, shard: int, server_round: int) -> int:
        return first if partition == LIAR and server_round == 1 else 5000

    strategy = coding(deadline=30.0, **options)
    result, _ = train(strategy, steady(4), app=one_everywhere(sizes), rounds=6)
    # Of nothing, where others have told of something before, there is no mean to be weighed.
    assert {node for report in strategy.history for node in report.rejected} <= ({101} if first == 0 else set())
    assert [len(report.rejected) for report in strategy.history[1:]] == [0] * 5
    assert strategy.state.shard_examples.tolist() == [5000.0] * N_SHARDS
    assert moved(result) == pytest.approx(6.0, abs=1.0)


def test_sizes_may_grow_and_shrink_with_the_data() -> None:
    def sizes(partition: int, shard: int, server_round: int) -> int:
        return {1: 40, 2: 40, 3: 90_000, 4: 90_000, 5: 0, 6: 0, 7: 7}[server_round]

    strategy, learnt = coding(load=2, early_end=False), []
    inner = strategy.aggregate_train

    def noting(*args: Any) -> Any:
        outcome = inner(*args)
        learnt.append(set(strategy.state.shard_examples.tolist()))
        return outcome

    strategy.aggregate_train = noting  # type: ignore[method-assign]
    train(strategy, steady(4), app=one_everywhere(sizes), rounds=7)
    assert learnt == [{40.0}, {40.0}, {90_000.0}, {90_000.0}, {0.0}, {0.0}, {7.0}]
    # Zero where there was something is nothing that can be weighed, once.
    assert [len(report.rejected) for report in strategy.history] == [0, 0, 0, 0, 4, 0, 0]


@pytest.mark.parametrize("place", ["first", "last"])
def test_the_majority_counts_and_is_not_left_out(place: str) -> None:
    """Client 1 says that its shards, of 40 examples each, have between 0 and a million, as it likes."""
    said = [10**6, 0, 1, 30_000, 7]

    def sizes(partition: int, shard: int, server_round: int) -> int:
        return said[server_round - 1] if partition == LIAR else 40

    fleet = steady(median=[1.0 + 0.1 * k if k != LIAR else {"first": 0.5, "last": 1.9}[place] for k in range(6)])
    strategy = coding(load=3, deadline=30.0, early_end=False)
    result, _ = train(strategy, fleet, app=one_everywhere(sizes), rounds=5)
    assert [list(report.rejected) for report in strategy.history] == [[], [101], [], [], []]
    assert strategy.state.shard_examples.tolist() == [40.0] * N_SHARDS
    assert moved(result) == pytest.approx(sum(report.coverage.mean() for report in strategy.history), rel=1e-5)


def test_the_only_holder_cannot_claim_ever_more() -> None:
    def sizes(partition: int, shard: int, server_round: int) -> int:
        return 100 * (900**server_round if partition == LIAR else 1)

    strategy = coding(load=1, early_end=False)
    result, _ = train(strategy, steady(), app=one_everywhere(sizes), rounds=4)
    assert [list(report.rejected) for report in strategy.history] == [[], [101], [101], [101]]
    assert strategy.history[1].rejected[101].endswith("must be at most 1e+06, as others' sizes show; got 8.1e+07")
    # Others got its shard since, and say what it is.
    assert strategy.state.shard_examples.tolist() == [100.0] * N_SHARDS
    assert moved(result) == pytest.approx(4.0, abs=1.0)


@pytest.mark.parametrize("early_end", [False, True])
def test_holders_that_differ_are_named_once(early_end: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Two and two hold the same shards, and split them into training and validation by seeds of their own."""
    fleet = build_fleet({"model": "log-normal", "clients": 4, "sigma": 0.6}, seed=1)
    app = one_everywhere(lambda partition, shard, server_round: 50 if partition < 2 else 150)
    # Blocks stay as they are: nodes that get to hold the same shards later on would be named too.
    strategy = coding(load=2, deadline=60.0, early_end=early_end, reassignment_gain=1.0)
    with caplog.at_level(logging.WARNING, logger="flwr"):
        result, _ = train(strategy, fleet, app=app, rounds=8)
    lines = re.findall(r"nodes (\d+) and (\d+) say different numbers of examples: (.*) \(one size", caplog.text)
    assert sorted(lines) == [
        ("100", "102", "50 and 150 of shard 0, 50 and 150 of shard 1, 50 and 150 of shard 2"),
        ("101", "103", "50 and 150 of shard 3, 50 and 150 of shard 4, 50 and 150 of shard 5"),
    ]
    assert "should have sent the same sum" not in caplog.text
    assert moved(result) == pytest.approx(8.0, abs=0.5)


def test_sizes_that_grow_are_no_disagreement(caplog: pytest.LogCaptureFixture) -> None:
    fleet = build_fleet({"model": "log-normal", "clients": 4, "sigma": 0.6}, seed=1)
    app = one_everywhere(lambda partition, shard, server_round: 50 * server_round)
    with caplog.at_level(logging.WARNING, logger="flwr"):
        train(coding(load=2, deadline=60.0), fleet, app=app, rounds=8)
    assert "say different" not in caplog.text


def test_a_metric_weighs_no_more_than_the_sizes_that_hold() -> None:
    def spoil(reply: Message, partition: int) -> Message | None:
        reply.content["metrics"]["loss"] = 9.0 if partition == LIAR else 1.0
        return claim_sizes(9000)(reply, partition)

    strategy = coding(load=2, early_end=False)
    result, _ = train(strategy, steady(), app=shard_app(spoil), rounds=3)
    assert result.train_metrics_clientapp[3]["loss"] < 9.0 / 2.0
