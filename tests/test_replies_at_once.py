"""Replies that are all there are read once, to be added; the outcome is as if each had been checked by itself."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fedgc.strategies import GradientCoding
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg

from fedgc.simulation.run import _task_identity

N = 6
START = {"w": np.linspace(1.0, 2.0, 70_000, dtype=np.float32), "steps": np.array(3), "half": np.ones(5, np.float16)}


@pytest.fixture(autouse=True)
def identity() -> Iterator[None]:
    with _task_identity():
        yield


def record(arrays: dict[str, np.ndarray[Any, Any]]) -> ArrayRecord:
    return ArrayRecord({name: Array(np.asarray(value)) for name, value in arrays.items()})


def round_of(bad: dict[int, dict[str, Any]], **options: Any) -> tuple[GradientCoding, list[Message]]:
    """Return a strategy whose clients were asked, and their replies; those of some clients have other arrays."""
    inner = FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1)
    strategy = GradientCoding(inner, num_shards=N, deadline=60.0, **options)
    nodes: Any = SimpleNamespace(get_node_ids=lambda: range(1, N + 1), get_nodes=list)
    messages = list(strategy.configure_train(1, record(START), ConfigRecord(), nodes))
    for number, message in enumerate(messages):
        message.metadata.__dict__["_message_id"] = f"m{number}"
    replies = []
    for client, message in enumerate(messages):
        shards = list(message.content["fedgc"]["shard-ids"])
        move = np.random.default_rng(shards[0]).standard_normal(70_000).astype(np.float32)
        arrays = {"w": START["w"] + move, "steps": np.array(4), "half": START["half"]} | bad.get(client, {})
        metrics = MetricRecord({"num-examples": 10 * len(shards)})
        told = ConfigRecord({"shard-ids": shards, "shard-examples": [10] * len(shards)})
        content = RecordDict({"arrays": record(arrays), "metrics": metrics, "fedgc": told})
        replies.append(Message(content, reply_to=message))
    return strategy, replies


def with_entry(value: float) -> dict[str, Any]:
    changed = START["w"].copy()
    changed[69_998] = value
    return {"w": changed}


CASES: dict[str, dict[int, dict[str, Any]]] = {
    "all good": {},
    "NaN": {1: with_entry(np.nan)},
    "infinity in every reply": {client: with_entry(np.inf) for client in range(N)},
    "both signs of infinity": {0: with_entry(np.inf), 1: with_entry(-np.inf)},
    "too large to weigh": {2: with_entry(3e38)},
    "another type": {3: {"half": np.full(5, 1e6)}},
    "another shape": {4: {"w": np.zeros(3, np.float32)}},
}


@pytest.mark.parametrize("bad", CASES.values(), ids=CASES)
@pytest.mark.parametrize("options", [{"load": 1}, {"load": 2}, {"decoder": "least-squares"}, {"memory": True}], ids=str)
def test_at_once_as_one_by_one(bad: dict[int, dict[str, Any]], options: dict[str, Any]) -> None:
    at_once, replies = round_of(bad, **options)
    one_by_one, others = round_of(bad, **options)
    arrays, metrics = at_once.aggregate_train(1, replies)
    assert one_by_one._run.open is not None
    for reply in others:
        one_by_one._run.open.take(reply)
    expected, of_these = one_by_one.aggregate_train(1, [])
    left, right = at_once.history[0], one_by_one.history[0]
    assert left.rejected == right.rejected
    assert set(left.rejected) == {client + 1 for client in bad}
    np.testing.assert_allclose(left.coverage, right.coverage)
    if expected is None:
        assert arrays is None
        return
    assert arrays is not None
    assert metrics == of_these
    for name, array in expected.items():
        assert arrays[name].dtype == array.dtype == str(START[name].dtype)
        np.testing.assert_allclose(arrays[name].numpy(), array.numpy(), rtol=0.0, atol=1e-6)


@pytest.mark.parametrize("place", range(N))
def test_what_is_not_finite_is_found_in_copies_too(place: int) -> None:
    """Of two members of a block the second is not decoded."""
    strategy, replies = round_of({place: with_entry(np.nan)}, load=2)
    strategy.aggregate_train(1, replies)
    assert set(strategy.history[0].rejected) == {place + 1}
    assert strategy.history[0].n_arrived == N - 1
