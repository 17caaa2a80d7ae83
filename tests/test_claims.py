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
from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg, Strategy

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
        strategy = coding(load=1, memory=True)
        train(strategy, fleet, app=app, rounds=4, backlog=True)
        assert strategy.state.memory is not None
        kept[name] = len(strategy.state.memory.updates)
    assert kept == {"honest": 6, "absurd": 5}
