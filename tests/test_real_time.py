"""Rounds in real time: clients stop in time to be heard, nodes work on one message at a time, deadlines are kept."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from fedgc.clients import ShardUpdate, gradient_coded
from fedgc.clients.encode import Budget
from fedgc.strategies import GradientCoding
from fedgc.strategies.rivals import PartialFedProx
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.serverapp.strategy import FedAvg
from flwr.supercore.task_identity import TaskIdentity

from fedgc.assignment import own_part
from fedgc.protocol import BUDGET, EXPECTED_EXAMPLES
from tests.apps import EXAMPLES, N_SHARDS, initial_arrays, train_shard
from tests.real_time_grid import RealTimeGrid

pytestmark = pytest.mark.alone


@pytest.fixture(autouse=True)
def identity(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("_run_id", 1), ("_node_id", SUPERLINK_NODE_ID), ("_task_id", 0)):
        monkeypatch.setattr(TaskIdentity, name, value)


def app(seconds_per_shard: float) -> ClientApp:
    client = ClientApp()

    @client.train()
    @gradient_coded(labels=("site", "rack"))
    def train(shard_id: int, arrays: ArrayRecord, config: ConfigRecord) -> ShardUpdate:
        time.sleep(seconds_per_shard)
        return train_shard(shard_id, arrays, config)

    @client.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        return Message(RecordDict({"metrics": MetricRecord({"num-examples": 1, "loss": 0.5})}), reply_to=message)

    return client


GridOf = Callable[[float, Sequence[float]], RealTimeGrid]


@pytest.fixture
def grid_of() -> Iterator[GridOf]:
    made: list[RealTimeGrid] = []

    def build(seconds_per_shard: float, delays: Sequence[float]) -> RealTimeGrid:
        # Node ids in the opposite order of the partitions, which they have nothing to do with in Flower either.
        config = [{"partition-id": p, "num-partitions": len(delays), "site": f"s{p % 2}"} for p in range(len(delays))]
        contexts = {109 - p: Context(1, 109 - p, own, RecordDict(), {}) for p, own in enumerate(config)}
        made.append(RealTimeGrid(app(seconds_per_shard), contexts, lambda partition: delays[partition]))
        return made[-1]

    yield build
    for grid in made:
        grid.join()


def strategy_for(n_nodes: int, **options: Any) -> GradientCoding:
    inner = FedAvg(min_train_nodes=n_nodes, min_available_nodes=n_nodes, min_evaluate_nodes=n_nodes)
    return GradientCoding(inner, num_shards=N_SHARDS, shard_examples=EXAMPLES, **options)


def test_clients_with_partial_work_stop_in_time_to_be_heard(grid_of: GridOf) -> None:
    delays = [0.02, 0.2, 0.4, 0.6]
    grid = grid_of(0.15, delays)
    strategy = strategy_for(4, deadline=1.2, load=3, schedule="work-list", early_end=False)
    strategy.start(grid, initial_arrays(), num_rounds=6)

    facts = [strategy.nodes[109 - partition] for partition in range(4)]
    assert [fact.partition for fact in facts] == [0, 1, 2, 3]
    assert [dict(fact.labels) for fact in facts] == [{"site": "s0"}, {"site": "s1"}, {"site": "s0"}, {"site": "s1"}]
    for fact, delay in zip(facts, delays, strict=True):
        assert delay <= fact.overhead < delay + 0.2
    # Nobody gets through its list of up to six shards, and nearly everybody is heard: a machine may stutter once.
    arrived = [report.n_arrived for report in strategy.history]
    assert sum(arrived) >= 4 * len(arrived) - 3
    assert all(report.shards_done <= 20 for report in strategy.history)
    assert np.mean([report.shards_done for report in strategy.history]) > 8
    over = [float(report.seconds or np.inf) - 1.2 for report in strategy.history]
    assert np.median(over) < 0.1


def test_fedprox_hears_from_clients_that_stop_at_its_deadline() -> None:
    """Each has two shards of half a second, and a second, of which a part is for the messages' way."""
    client = ClientApp()

    @client.train()
    @gradient_coded(num_shards=N_SHARDS)
    def train(shard_id: int, arrays: ArrayRecord, config: ConfigRecord) -> ShardUpdate:
        time.sleep(0.5)
        return train_shard(shard_id, arrays, config)

    config = [{"partition-id": p, "num-partitions": 3} for p in range(3)]
    contexts = {100 + p: Context(1, 100 + p, own, RecordDict(), {}) for p, own in enumerate(config)}
    grid = RealTimeGrid(client, contexts, lambda partition: 0.05 * partition)
    strategy = PartialFedProx(travel_seconds=0.3, fraction_evaluate=0.0, min_train_nodes=3, min_available_nodes=3)
    examples = []

    def tell(replies: list[RecordDict], weighted_by: str) -> MetricRecord:
        examples.append([reply["metrics"][weighted_by] for reply in replies])
        return MetricRecord({})

    strategy.train_metrics_aggr_fn = tell
    strategy.start(grid, initial_arrays(), num_rounds=3, timeout=1.0)
    assert sum(map(len, examples)) >= 8  # a machine may stutter once
    first = {EXAMPLES[own_part(partition, 3, N_SHARDS)[0]] for partition in range(3)}
    assert {told for one_round in examples for told in one_round} == first


#: Many small shards and a few that are twenty times as large, at 6 ms per example: twelve or 250 ms each.
UNEQUAL = [2] * 20 + [40] * 4


@pytest.mark.parametrize("given", [True, False])
def test_clients_do_not_begin_a_large_shard_that_would_end_too_late(given: bool) -> None:
    client = ClientApp()

    @client.train()
    @gradient_coded()
    def train(shard_id: int, arrays: ArrayRecord, config: ConfigRecord) -> ShardUpdate:
        time.sleep(UNEQUAL[shard_id] * 0.00625)
        return ShardUpdate(UNEQUAL[shard_id], delta={name: 0.0 * array.numpy() for name, array in arrays.items()})

    config = [{"partition-id": p, "num-partitions": 4} for p in range(4)]
    contexts = {100 + p: Context(1, 100 + p, own, RecordDict(), {}) for p, own in enumerate(config)}
    grid = RealTimeGrid(client, contexts, lambda partition: 0.02)
    strategy = GradientCoding(
        FedAvg(fraction_evaluate=0.0, min_train_nodes=4, min_available_nodes=4),
        num_shards=24,
        shard_examples=UNEQUAL if given else None,
        deadline=0.45,
        schedule="work-list",
        early_end=False,
        first_deadline=None if given else 5.0,  # in which all sizes are told
        start_timeout=1.0,
    )
    strategy.start(grid, initial_arrays(), num_rounds=9)
    grid.join()
    arrived = [report.n_arrived for report in strategy.history]
    assert sum(arrived) >= 4 * 9 - 2, arrived  # a machine may stutter
    assert min(report.shards_done for report in strategy.history) > 12


@pytest.mark.parametrize(
    ("expected", "done"),
    [
        ([1] * 9 + [30], 9),  # 0.09 s of work, and 0.3 s to come
        ([30] + [1] * 9, 10),  # a second one as long as the first would end too late
        ([0] * 9 + [1], 10),  # nothing is known of the seconds per example
        ([1] * 9 + [-1], 10),
        ([1] * 5, 10),
        (None, 10),
    ],
)
def test_the_next_shard_takes_as_long_as_its_examples_say(expected: list[int] | None, done: int) -> None:
    told = {} if expected is None else {EXPECTED_EXAMPLES: expected}
    budget = Budget(ConfigRecord({BUDGET: 0.35, **told}))
    sizes = expected if expected is not None and len(expected) == 10 else [1] * 10
    count = 0
    while count < 10 and budget.has_time_for(count):
        time.sleep(0.01 * abs(sizes[count]) * (0.8 if sizes[0] == 30 else 1.0))
        budget.shard_done(max(sizes[count], 0))
        count += 1
    assert count == done


def test_a_node_has_one_message_at_a_time(grid_of: GridOf) -> None:
    grid = grid_of(0.0, [0.9, 0.0, 0.0])
    strategy = strategy_for(3, deadline=0.6, load=2, early_end=False, start_timeout=0.0)
    strategy.start(grid, initial_arrays(), num_rounds=5)
    assert grid.most_at_once == 1
    # It takes one round and a half each time: heard in a round's middle, it gets the next message then.
    assert [report.n_clients for report in strategy.history] == [3] * 5
    assert all(report.n_arrived >= 2 for report in strategy.history)
    assert sum(report.n_arrived for report in strategy.history) <= 13
    assert not any(report.rejected for report in strategy.history)
    # What it needs was learnt from its late replies, counted from when it was sent its message.
    slow, quick = strategy.state.overheads.seconds[109], strategy.state.overheads.seconds[108]
    assert all(0.9 <= seconds < 1.3 for seconds in slow)
    assert all(seconds < 0.4 for seconds in quick)


def test_a_deadline_that_nobody_can_meet_is_said_so_at_the_start(
    grid_of: GridOf, caplog: pytest.LogCaptureFixture
) -> None:
    grid = grid_of(0.0, [0.5, 0.5])
    strategy = strategy_for(2, deadline=0.2)
    caplog.set_level(logging.WARNING)
    strategy.start(grid, initial_arrays(), num_rounds=1)
    assert "no node can answer within the deadline of 0.2 s" in caplog.text


def test_a_lost_evaluation_does_not_keep_a_node_from_training(grid_of: GridOf) -> None:
    grid = grid_of(0.0, [0.0, 0.0])
    lost: list[str] = []
    push = grid.push_messages

    def losing(messages: Iterable[Message]) -> Iterable[str]:
        kept = []
        for message in messages:
            if message.metadata.message_type.startswith("evaluate") and not lost:
                message.metadata.__dict__["_message_id"] = "lost"
                lost.append("lost")
            else:
                kept.append(message)
        return [*push(kept), *lost[len(lost) - (len(kept) == 1) :]]

    grid.push_messages = losing  # type: ignore[method-assign]
    strategy = strategy_for(2, deadline=0.5, load=1, start_timeout=0.0)
    strategy.start(grid, initial_arrays(), num_rounds=4, timeout=0.4)
    assert lost
    assert [report.n_arrived for report in strategy.history][-1] == 2
    assert grid.most_at_once == 1


def test_an_evaluation_does_not_wait_for_ever_for_a_node_that_has_gone(
    grid_of: GridOf, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Three nodes are asked for, and one goes after each round of training until the evaluation is over."""
    strategy = GradientCoding(FedAvg(min_available_nodes=3), num_shards=N_SHARDS, deadline=3.0, nodes_timeout=1.5)
    grid = grid_of(0.0, [0.05] * 3)
    there = list(grid.get_node_ids())
    monkeypatch.setattr(
        grid, "get_node_ids", lambda: there[:2] if len(strategy.history) > caplog.text.count("is left out") else there
    )
    began = time.monotonic()
    result = strategy.start(grid, initial_arrays(), num_rounds=2, timeout=5.0)
    assert time.monotonic() - began < 15.0
    assert len(strategy.history) == 2
    assert not result.evaluate_metrics_clientapp
    assert caplog.text.count("2 of at least 3 nodes are there after 2 s") == 2
    assert caplog.text.count("this evaluation is left out") == 2
