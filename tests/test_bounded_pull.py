"""Replies pulled from a SuperLink: Flower's own state, store, handlers and grid; nodes send what they like."""

from __future__ import annotations

import re
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fedgc.strategies import GradientCoding
from fedgc.strategies.messages.bounded_pull import BoundedPull, bounded
from fedgc.strategies.messages.pull_limits import PullLimits
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.app.message import make_message
from flwr.clientapp import ClientApp
from flwr.common.constant import FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE
from flwr.serverapp.strategy import FedAvg
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedgc.simulation.run import _task_identity
from tests.apps import EXAMPLES, N_SHARDS, arrays_of, initial_arrays, shard_app
from tests.superlink_at_hand import SuperLinkAtHand

sys.path.append(str(Path(__file__).parent / "hostile_app"))
from hostile_app.attacks import ATTACKS, GIANT

N_NODES, HOSTILE = 4, 3


def coding(**options: Any) -> GradientCoding:
    inner = FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1)
    known = {"deadline": 20.0, "load": 2, "start_timeout": 0.0, "early_end": False, "shard_examples": EXAMPLES}
    return GradientCoding(inner, **{"num_shards": N_SHARDS, **known, **options})


def app_with(attack: str | None = None) -> ClientApp:
    """An app of which one client does harm in the second round."""

    def spoil(reply: Message, partition: int) -> Message | None:
        if attack is not None and partition == HOSTILE and reply.metadata.group_id == "2":
            ATTACKS[attack](reply, np.random.default_rng(0))
        return None

    return shard_app(spoil)


def train(link: SuperLinkAtHand, strategy: GradientCoding, rounds: int = 3) -> dict[str, NDArray[Any]]:
    with link.grid() as grid:
        return arrays_of(strategy.start(grid, initial_arrays(), num_rounds=rounds).arrays)


def test_honest_replies_come_as_flowers_own_grid_pulls_them(monkeypatch: pytest.MonkeyPatch) -> None:
    link = SuperLinkAtHand(app_with(), N_NODES)
    with link.grid() as grid:
        assert isinstance(bounded(grid), BoundedPull)
    ours = train(link, coding(schedule="work-list"))
    assert len(link.state.object_store) == 0
    with monkeypatch.context() as patch:
        patch.setattr("fedgc.strategies.rounds.deadline_grid.bounded", lambda grid: None)
        flowers = train(SuperLinkAtHand(app_with(), N_NODES), coding(schedule="work-list"))
    for name, value in ours.items():
        np.testing.assert_allclose(value, flowers[name], rtol=1e-6)


TOO_MUCH = r"a reply must have at most \d+ {}; got more"
REFUSED = {
    "giant array": r"the arrays of a reply must have at most \d+ bytes; got more",
    "many parts": r"the arrays of a reply must have at most \d+ bytes; got more",
    "many records": TOO_MUCH.format("objects"),
    "many arrays": TOO_MUCH.format("objects"),
    "huge metrics": TOO_MUCH.format("bytes beside arrays"),
    "huge config": TOO_MUCH.format("bytes beside arrays"),
    "not to be read": r"it cannot be read: Expecting value: line 1 column 1",
    "giant header": r"array 'weight' cannot be read: an array of shape \(137438953472,\)",
    "no bytes each": r"array 'weight' cannot be read: an array of shape \(1000000000,\)",
    "long reason": r"error 2: RuntimeError: battery empty\\nround 1: node 7 is left out: forged\\n",
}


@pytest.mark.parametrize(("attack", "reason"), REFUSED.items(), ids=REFUSED)
def test_what_no_honest_reply_holds_costs_the_run_nothing(attack: str, reason: str) -> None:
    """The node is silent in that round, and all of what it sent is removed from the SuperLink."""
    link, strategy = SuperLinkAtHand(app_with(attack), N_NODES), coding()
    arrays = train(link, strategy)
    node = link.nodes[HOSTILE]
    assert [set(report.rejected) for report in strategy.history] == [set(), {node}, set()]
    told = strategy.history[1].rejected[node]
    assert re.search(reason, told), told
    assert len(told) <= 520 and "\n" not in told
    assert len(link.state.object_store) == 0
    assert strategy.history[1].n_arrived == N_NODES - 1
    assert all(np.isfinite(value).all() for value in arrays.values())
    # One part is in memory before it is known how large it is.
    limits = PullLimits.of(initial_arrays(), 1, N_SHARDS)
    allowed = limits.array_bytes + limits.other_bytes
    assert link.pulled_bytes < 3 * N_NODES * allowed + max(FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE, 12 * 10**6) < GIANT


def test_an_array_that_names_one_part_again_and_again_is_not_put_together() -> None:
    """The model is larger than the part, so that it is pulled; put together it would be of 2 GB."""
    link = SuperLinkAtHand(ClientApp(), 1)
    model = ArrayRecord({"w": Array(np.zeros(10**6))})
    with link.grid() as grid:
        pull = bounded(grid)
        assert pull is not None
        pull.limits = PullLimits.of(model)
        message = Message(RecordDict({"arrays": model}), link.nodes[0], "train")
        ids = list(pull.push_messages([message]))
        reply = Message(RecordDict({"arrays": ArrayRecord(dict(model))}), reply_to=link._fetch(link.nodes[0]))
        ATTACKS["many parts"](reply, np.random.default_rng(0))
        link.upload(link.nodes[0], reply)
        tracemalloc.start()
        came = list(pull.pull_messages(ids))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert [one.error.reason for one in came] == [
        f"the arrays of a reply must have at most {PullLimits.of(model).array_bytes} bytes; got more"
    ]
    assert peak < 20e6


def test_a_reply_that_is_still_being_sent_is_looked_at_again() -> None:
    """It counts, and the others are taken in meanwhile."""
    link, strategy = SuperLinkAtHand(app_with(), N_NODES), coding()
    link.at_once = lambda node: 2 if node == link.nodes[0] else None
    link.looks_until_sent = 20
    train(link, strategy, rounds=2)
    slow = [report.node_ids.index(link.nodes[0]) for report in strategy.history]
    assert all(report.n_arrived == N_NODES and not report.rejected for report in strategy.history)
    for report, client in zip(strategy.history, slow, strict=True):
        others = np.delete(report.reply_seconds, client)
        assert report.reply_seconds[client] > others.max()
        assert report.seconds is not None and report.seconds < 15.0


@pytest.mark.parametrize("count", [0, 2])
def test_a_reply_that_is_never_sent_in_full_ends_no_round_late(count: int) -> None:
    """Flower's own grid waits three minutes for it."""
    link, strategy = SuperLinkAtHand(app_with(), N_NODES), coding(deadline=1.5)
    link.at_once = lambda node: count if node == link.nodes[0] else None
    link.looks_until_sent = 10**9
    train(link, strategy)
    for report in strategy.history:
        assert report.seconds is not None and report.seconds < 1.5 + 0.5
        assert report.rejected == {}
        assert report.n_arrived >= N_NODES - 1


def test_who_sent_a_reply_and_to_what_is_what_the_superlink_has_checked() -> None:
    """A node puts into its reply that it is another node's, to that node's message."""
    link, strategy = SuperLinkAtHand(app_with(), N_NODES), coding()
    replies: dict[int, Message] = {}

    def claim(node: int, reply: Message) -> Message:
        replies[node] = reply
        if node != link.nodes[HOSTILE]:
            return reply
        others = replies[link.nodes[0]].metadata
        return make_message(metadata=others, content=reply.content)

    link.content = claim
    arrays = train(link, strategy)
    expected = train(SuperLinkAtHand(app_with(), N_NODES), coding())
    assert all(report.n_arrived == N_NODES and not report.rejected for report in strategy.history)
    for name, value in expected.items():
        np.testing.assert_allclose(arrays[name], value, rtol=1e-6)


SHAPES = st.lists(st.lists(st.integers(0, 40), max_size=3).map(tuple), min_size=1, max_size=6)
TYPES = st.sampled_from(["f2", "f4", "f8", "i1", "i8", "?"])


@settings(deadline=None)
@given(shapes=SHAPES, dtype=TYPES, n_sums=st.integers(1, 4), n_shards=st.integers(1, 30), zero=st.booleans())
def test_honest_replies_are_within_the_limits(
    shapes: list[tuple[int, ...]], dtype: str, n_sums: int, n_shards: int, zero: bool
) -> None:
    rng = np.random.default_rng(0)
    model = ArrayRecord(
        {
            f"layer {i}": Array(np.asarray(rng.random(shape) * (0 if zero else 9), dtype=dtype))
            for i, shape in enumerate(shapes)
        }
    )
    assert_within_limits(model, n_sums, n_shards)


@pytest.mark.parametrize("zero", [True, False])
def test_honest_replies_of_many_parts_are_within_the_limits(zero: bool) -> None:
    """Parts that are alike, as those of zeros, are sent once and named often."""
    values = np.zeros(4 * 10**6, np.float32) if zero else np.random.default_rng(0).random(4 * 10**6, np.float32)
    assert_within_limits(ArrayRecord({"w": Array(values), "b": Array(np.zeros(3))}), 2, 5)


def assert_within_limits(model: ArrayRecord, n_sums: int, n_shards: int) -> None:
    limits = PullLimits.of(model, n_sums, n_shards)
    with _task_identity():
        values = {name: array.numpy() for name, array in model.items()}
        sums = {}
        for i in range(n_sums):
            moved = {name: Array(np.asarray(value + np.array(i, value.dtype))) for name, value in values.items()}
            sums[f"sum-{i}"] = ArrayRecord(moved)
        told = ConfigRecord({"shard-ids": list(range(n_shards)), "shard-examples": [10**6] * n_shards})
        content = RecordDict({**sums, "metrics": MetricRecord({"loss": 0.1}), "fedgc": told})
        reply = Message(content, 7, "train")
        objects = {key: one.deflate() for key, one in get_all_nested_objects(reply).items()}
    chunks = sum(len(one) for one in objects.values() if one.startswith(b"ArrayChunk "))
    limits.check(chunks, sum(map(len, objects.values())) - chunks)
    assert len(objects) <= limits.objects
    limits.check(sum(len(array.data) for record in sums.values() for array in record.values()), 0)
