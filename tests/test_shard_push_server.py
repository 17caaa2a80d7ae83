"""What the server takes each node to keep: silence, errors, late replies and nonsense."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from fedgc.strategies import GradientCoding, PushedShards
from flwr.app import ConfigRecord, Error, Message, MetricRecord, RecordDict

from fedgc.checkpoint import pack_tree, unpack_tree
from fedgc.simulation.run import _task_identity
from tests.pushed_shards import (
    BYTES,
    DIGESTS,
    SHARDS,
)


class Server:
    """A server's side without a run: messages go out and replies come back by hand."""

    def __init__(self, shards: PushedShards) -> None:
        self.shards, self.replies, self.n = shards, [], 0

    def send(self, node_id: int, shard_ids: list[int]) -> Message:
        self.n += 1
        message = Message(
            RecordDict({"fedgc": ConfigRecord({"shard-ids": shard_ids})}), dst_node_id=node_id, message_type="train"
        )
        self.shards.attach([message])
        message.metadata.__dict__["_message_id"] = str(self.n)
        return message

    def pushed(self, message: Message) -> list[int]:
        return sorted(int(name.split("-")[2]) for name in message.content.config_records if name != "fedgc")


def answer(message: Message, lacking: Any = (), kept: Any = None) -> Message:
    record = message.content.config_records["fedgc"]
    named = [*record["shard-ids"], *record.get("asked-shards", [])]  # type: ignore[misc]
    said = ConfigRecord({"shard-ids": list(record["shard-ids"])})  # type: ignore[arg-type]
    said["kept-shards"] = len(named) - len(lacking) if kept is None else kept
    if lacking:
        said["lacking-shards"] = lacking
    return Message(RecordDict({"fedgc": said, "metrics": MetricRecord({"num-examples": 1})}), reply_to=message)


@pytest.fixture
def in_a_run() -> Iterable[None]:
    """Flower's messages need to know who sends them; a run's frame says so."""
    with _task_identity():
        yield


@pytest.mark.usefixtures("in_a_run")
def test_what_the_server_makes_of_silence_errors_and_late_replies() -> None:
    shards = PushedShards(SHARDS)
    server = Server(shards)
    first = server.send(7, [0, 1])
    assert server.pushed(first) == [0, 1]
    # Silence: the shards are taken to have come, and are asked about.
    second = server.send(7, [0, 2])
    assert server.pushed(second) == [2]
    assert second.content["fedgc"]["asked-shards"] == [1]
    assert second.content["fedgc"]["asked-digests"] == [DIGESTS[1]]
    # A late reply to the first lacks what has been sent since: nothing about 2; shard 1 goes again.
    shards.hear([answer(first, lacking=[1])])
    third = server.send(7, [0, 1, 2])
    assert server.pushed(third) == [1]
    # The newest reply is heard, then an older one, which is out of date.
    shards.hear([answer(third), answer(second, lacking=[0, 1, 2])])
    assert server.pushed(server.send(7, [0, 1, 2])) == []
    # An exception in the client says nothing about its store; a message that was not delivered brought nothing.
    for code, again in ((2, []), (4, []), (3, [3]), (5, [3])):
        shards.hear([Message(Error(3, "gone"), reply_to=server.send(code + 10, [4]))])
        failed = server.send(code + 10, [3])
        shards.hear([Message(Error(code, "failed"), reply_to=failed)])
        assert server.pushed(server.send(code + 10, [3])) == again
    # Of two shards one fits into a message; the late reply to the first message lacks the one that has gone since.
    halves = Server(PushedShards(SHARDS, message_bytes=1))
    first = halves.send(7, [0, 1])
    assert halves.pushed(first) == [0]
    assert halves.pushed(halves.send(7, [0, 1])) == [1]
    halves.shards.hear([answer(first, lacking=[1])])
    assert halves.pushed(halves.send(7, [0, 1])) == []
    # Another node is another node.
    assert server.pushed(server.send(8, [0])) == [0]


@pytest.mark.usefixtures("in_a_run")
@pytest.mark.parametrize(
    ("lacking", "kept"),
    [
        ([0, 1, 2, 3, 4], None),
        (["../x"], 1),
        ([0.5], 1),
        ([9], 1),
        ([0], 7),
        (["0"], 1),
        ([0], "1"),
        (3, 1),
        ([0] * 9, 1),
    ],
)
def test_nonsense_about_lacking_shards_is_passed_over(lacking: Any, kept: Any) -> None:
    shards = PushedShards(SHARDS)
    server = Server(shards)
    message = server.send(7, [0, 1])
    reply = answer(message, kept=kept)
    reply.content["fedgc"]["lacking-shards"] = lacking
    if kept is None:
        reply.content["fedgc"]["kept-shards"] = 0
    shards.hear([reply, reply])
    assert server.pushed(server.send(7, [0, 1])) == []


@pytest.mark.usefixtures("in_a_run")
def test_only_so_many_shards_are_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedgc.strategies.shard_push._MOST_ASKED", 2)
    server = Server(PushedShards(SHARDS))
    for shard_id in range(5):
        message = server.send(7, [shard_id])
        assert server.pushed(message) == [shard_id]
    assert message.content["fedgc"]["asked-shards"] == [2, 3]
    assert server.pushed(server.send(7, [1])) == [1]  # forgotten, so it is sent again
    assert server.pushed(server.send(7, [4, 3])) == []


@pytest.mark.usefixtures("in_a_run")
def test_records_are_of_each_message_alone_and_data_is_shared() -> None:
    shards = PushedShards(SHARDS)
    messages = [
        Message(RecordDict({"fedgc": ConfigRecord({"shard-ids": [0]})}), dst_node_id=node, message_type="train")
        for node in (7, 8)
    ]
    shards.attach(messages)
    one, other = (message.content["fedgc-shard-0-0"] for message in messages)
    assert one is not other
    assert one["data"] == other["data"]
    assert one.object_id == other.object_id  # Flower stores and sends it once
    assert shards.history[-1].n_bytes == 2 * BYTES[0]


@pytest.mark.usefixtures("in_a_run")
def test_shards_must_stay_the_same() -> None:
    count = iter(range(10))
    server = Server(PushedShards(lambda shard_id: {"x": np.array([next(count)])}))
    server.send(7, [0])
    with pytest.raises(ValueError, match="shards must be the same in every round; got other arrays for shard 0"):
        server.send(8, [0])


def test_options_are_checked() -> None:
    options: dict[str, Any] = {"num_shards": 8, "deadline": 1.0}
    with pytest.raises(ValueError, match=r"shards must hold all of 0 to 7; got none for \[6, 7\]"):
        GradientCoding(shards=PushedShards(SHARDS), **options)
    with pytest.raises(ValueError, match=r"shards must be PushedShards; got \{\}"):
        GradientCoding(shards={}, **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="shards must map shard ids to arrays, or be a function; got 3"):
        PushedShards(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="message_bytes must be an integer of at least 1; got 0"):
        PushedShards({}, message_bytes=0)


@pytest.mark.usefixtures("in_a_run")
@pytest.mark.parametrize("messages", [True, False])
def test_after_a_restart_the_server_knows_what_nodes_keep(messages: bool) -> None:
    before = Server(PushedShards(SHARDS, ask_first=True))
    for node_id in (7, 8):
        before.shards.hear([answer(before.send(node_id, [0, 1]), lacking=[0, 1])])  # the first message only asks
        before.shards.hear([answer(before.send(node_id, [0, 1]))])
    open_message = before.send(7, [0, 1, 2])  # not answered when the process dies
    data = unpack_tree(pack_tree(before.shards.to_data()))
    after = Server(PushedShards(SHARDS, ask_first=True))
    after.n = before.n
    after.shards.from_data(data, messages=messages)()
    assert after.shards.history == before.shards.history
    if messages:
        after.shards.hear([answer(open_message, lacking=[1])])
        assert after.pushed(after.send(7, [0, 1, 2])) == [1]
    else:  # what it brought is lost with it, as far as anybody knows
        assert after.pushed(after.send(7, [0, 1, 2])) == [2]
    assert after.pushed(after.send(8, [0, 1, 3])) == [3]
