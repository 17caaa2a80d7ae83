"""The client's side: the loop over shards, the encoding and the reply."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from fedgc.clients import ShardUpdate, gradient_coded
from fedgc.strategies import GradientCoding
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from fedgc.simulation import run_virtual
from tests.apps import (
    EXAMPLES,
    N_SHARDS,
    arrays_of,
    full_aggregate,
    initial_arrays,
    shard_delta,
    steady,
    train,
    train_shard,
)


def ask(trainer: Callable[..., Any], assignment: dict[str, Any] | None, *, clients: int = 1, **options: Any) -> Message:
    """Send one train message to client 0 and return its reply."""
    app = ClientApp()
    app.train()(gradient_coded(**options)(trainer))
    replies: list[Message] = []

    def main(grid: Grid, context: Context) -> None:
        content = RecordDict({"arrays": initial_arrays(), "config": ConfigRecord({"server-round": 3, "lr": 0.1})})
        if assignment is not None:
            content["fedgc"] = ConfigRecord(assignment)
        replies.extend(grid.send_and_receive([Message(content, 100, "train")]))

    server = ServerApp()
    server.main()(main)
    run_virtual(server, app, steady(clients))
    return replies[0]


def test_the_reply_is_the_encoded_sum() -> None:
    assignment = {"shard-ids": [4, 1], "coefficients": [2.0, -0.5], "run-seed": 9}
    reply = ask(train_shard, assignment).content
    start = arrays_of(initial_arrays())
    for name, value in start.items():
        coded = 2.0 * 5 * shard_delta(4, start)[name] - 0.5 * 1 * shard_delta(1, start)[name]
        np.testing.assert_allclose(reply["arrays"][name].numpy(), value + coded / 6, atol=1e-6)
        assert reply["arrays"][name].numpy().dtype == value.dtype
    assert dict(reply["metrics"]) == {"num-examples": 6, "loss": pytest.approx((5 * 4 + 1 * 1) / 6)}
    assert reply["fedgc"]["shard-ids"] == [4, 1]
    assert reply["fedgc"]["shard-examples"] == [5, 1]
    assert 0.0 <= reply["fedgc"]["work-seconds"] <= reply["fedgc"]["busy-seconds"]


def test_without_an_assignment_it_is_a_fedavg_client() -> None:
    """Plain FedAvg over decorated clients computes the weighted mean over all shards, however they are divided."""
    for clients in (1, 2, 4, 6):
        result, _ = train(FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1), steady(clients))
        for name, value in full_aggregate(initial_arrays()).items():
            expected = arrays_of(initial_arrays())[name] + value
            np.testing.assert_allclose(arrays_of(result.arrays)[name], expected, atol=1e-6)


def test_number_of_shards_may_come_from_the_run_config() -> None:
    seen: list[int] = []

    def trainer(shard_id: int, arrays: ArrayRecord, config: ConfigRecord) -> ShardUpdate:
        seen.append(shard_id)
        return train_shard(shard_id, arrays, config)

    app = ClientApp()
    app.train()(gradient_coded()(trainer))
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        FedAvg(fraction_evaluate=0.0).start(grid, initial_arrays(), num_rounds=1)

    run_virtual(server, app, steady(3), run_config={"num-shards": N_SHARDS})
    assert seen == [0, 1, 2, 3, 4, 5]
    seen.clear()
    run_virtual(server, app, steady(3))
    assert seen == [0, 1, 2]  # one shard per partition


def test_new_arrays_torch_tensors_and_deltas_say_the_same() -> None:
    def as_arrays(shard_id: int, arrays: ArrayRecord, config: ConfigRecord) -> ShardUpdate:
        start = arrays_of(arrays)
        after = {k: start[k] + v for k, v in shard_delta(shard_id, start).items()}
        return ShardUpdate(EXAMPLES[shard_id], arrays=ArrayRecord({k: _record(v) for k, v in after.items()}))

    def as_tensors(shard_id: int, arrays: ArrayRecord, config: ConfigRecord) -> ShardUpdate:
        start = arrays_of(arrays)
        after = {k: torch.tensor(start[k] + v, requires_grad=True) for k, v in shard_delta(shard_id, start).items()}
        return ShardUpdate(EXAMPLES[shard_id], arrays=after)

    assignment = {"shard-ids": [0, 5], "coefficients": [1.0, 1.0], "run-seed": 0}
    replies = [arrays_of(ask(f, assignment).content["arrays"]) for f in (train_shard, as_arrays, as_tensors)]
    for name in replies[0]:
        np.testing.assert_allclose(replies[1][name], replies[0][name], atol=1e-6)
        np.testing.assert_allclose(replies[2][name], replies[0][name], atol=1e-6)


def _record(value: np.ndarray) -> Any:
    return next(iter(ArrayRecord([value]).values()))


def test_the_config_has_the_servers_keys_and_a_seed_per_round_and_shard() -> None:
    def seeds(run_seed: int, ids: list[int]) -> list[int]:
        seen: list[int] = []

        def trainer(shard_id: int, arrays: ArrayRecord, config: ConfigRecord, context: Context) -> ShardUpdate:
            assert config["lr"] == 0.1
            assert context.node_config["partition-id"] == 0
            seen.append(config["shard-seed"])  # type: ignore[arg-type]
            config["lr"] = 7.0  # must not reach the next shard
            return train_shard(shard_id, arrays, config)

        ask(trainer, {"shard-ids": ids, "coefficients": [1.0] * len(ids), "run-seed": run_seed})
        return seen

    first = seeds(1, [0, 1, 2])
    assert len(set(first)) == 3
    assert seeds(1, [2, 0]) == [first[2], first[0]]
    assert seeds(2, [0, 1, 2]) != first


@pytest.mark.parametrize(
    ("update", "reason"),
    [
        (None, "TypeError: shard 2: the train function must return a ShardUpdate; got NoneType"),
        (ShardUpdate(3), "ValueError: shard 2: a ShardUpdate must hold either arrays or delta; got both or neither"),
        (ShardUpdate(3, arrays={}, delta={}), "must hold either arrays or delta; got both or neither"),
        (ShardUpdate(3, delta={}, metrics={"num-examples": 3}), "metrics must not hold 'num-examples'"),
        (ShardUpdate(-1, delta={}), "shard 2: num_examples must be an integer of at least 0; got -1"),
        (ShardUpdate(1, delta={"weight": np.zeros((2, 2))}), r"array names must be ['bias', 'weight']; got ['weight']"),
        (
            ShardUpdate(1, delta={"weight": np.zeros(4), "bias": np.zeros(1)}),
            r"array 'weight' must have shape (2, 2); got (4,)",
        ),
    ],
)
def test_a_wrong_return_value_says_what_is_wrong(update: Any, reason: str) -> None:
    reply = ask(lambda shard_id, arrays, config: update, {"shard-ids": [2], "coefficients": [1.0], "run-seed": 0})
    assert reply.has_error()
    assert reason in str(reply.error.reason)


def test_num_shards_is_checked_when_decorating() -> None:
    with pytest.raises(ValueError, match="num_shards must be an integer of at least 1; got 0"):
        gradient_coded(num_shards=0)


@pytest.mark.parametrize("assigned", [True, False], ids=["assigned", "plain FedAvg"])
def test_what_an_empty_shard_reports_does_not_count(assigned: bool) -> None:
    """The mean over nothing is NaN, of the loss as of the gradients."""

    def trainer(shard_id: int, arrays: ArrayRecord, config: ConfigRecord) -> ShardUpdate:
        empty = shard_id == 0
        delta = {name: np.full(array.shape, np.nan if empty else 1.0) for name, array in arrays.items()}
        return ShardUpdate(0 if empty else 10, delta=delta, metrics={"loss": float("nan") if empty else 0.5})

    assignment = {"shard-ids": [0, 1], "coefficients": [1.0, 1.0], "run-seed": 9}
    reply = ask(trainer, assignment if assigned else None, num_shards=2).content
    assert dict(reply["metrics"]) == {"num-examples": 10, "loss": 0.5}
    assert reply["fedgc"]["shard-examples"] == [0, 10]
    for name, value in arrays_of(initial_arrays()).items():
        np.testing.assert_allclose(reply["arrays"][name].numpy(), value + 1.0)


def test_a_run_with_an_empty_shard_loses_no_reply() -> None:
    sizes = [10, 0, 5, 7, 10, 10]

    def trainer(shard_id: int, arrays: ArrayRecord, config: ConfigRecord) -> ShardUpdate:
        loss = 1.0 if sizes[shard_id] else float("nan")
        delta = {name: np.ones(array.shape) for name, array in arrays.items()}
        return ShardUpdate(sizes[shard_id], delta=delta, metrics={"loss": loss})

    app = ClientApp()
    app.train()(gradient_coded(num_shards=N_SHARDS)(trainer))
    strategy = GradientCoding(FedAvg(fraction_evaluate=0.0), num_shards=N_SHARDS, deadline=100.0, early_end=False)
    result, _ = train(strategy, steady(4), app=app, rounds=3)
    assert [report.rejected for report in strategy.history] == [{}] * 3
    assert result.train_metrics_clientapp[3]["loss"] == pytest.approx(1.0)


@pytest.mark.parametrize("value", [[1.0, 2.0], "low", None], ids=str)
def test_a_metric_that_is_no_number_is_named(value: Any) -> None:
    def trainer(shard_id: int, arrays: ArrayRecord, config: ConfigRecord) -> ShardUpdate:
        delta = {name: 0.0 * array.numpy() for name, array in arrays.items()}
        return ShardUpdate(3, delta=delta, metrics={"parts": value})

    reply = ask(trainer, {"shard-ids": [4], "coefficients": [1.0], "run-seed": 9})
    assert "shard 4: metric 'parts' must be a number; got " in reply.error.reason
