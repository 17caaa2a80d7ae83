"""Replies that are sent again, or under another node's name: never taken for what they are not."""

from __future__ import annotations

from typing import Any

import numpy as np
from flwr.app import Array, Message, RecordDict
from flwr.serverapp import Grid

from tests.apps import arrays_of, shard_app, steady, train
from tests.hostile_fleet import HOSTILE, N_CLIENTS, NODE, coding
from tests.malformed_replies import copy_of


def test_replies_of_earlier_rounds_are_never_mixed_in() -> None:
    """The network delivers every reply of every earlier round again with each look."""
    seen: list[Message] = []

    def again(grid: Grid) -> None:
        pull = grid.pull_messages

        def pull_messages(ids: Any) -> list[Message]:
            came = list(pull(ids))
            before = list(seen) if came else []
            seen.extend(copy_of(reply, _sent_by(reply)) for reply in came)
            return [*before, *came]

        grid.pull_messages = pull_messages  # type: ignore[method-assign]

    strategy, expected = coding(), coding()
    result, _ = train(strategy, steady(N_CLIENTS), rounds=4, on_grid=again)
    other, _ = train(expected, steady(N_CLIENTS), rounds=4)
    assert len(seen) == 4 * N_CLIENTS
    for name, value in arrays_of(other.arrays).items():
        np.testing.assert_array_equal(arrays_of(result.arrays)[name], value)
    assert [report.n_arrived for report in strategy.history] == [N_CLIENTS] * 4
    assert not strategy.history[0].rejected
    for report in strategy.history[1:]:
        assert set(report.rejected.values()) == {"not a first reply to a message of this round"}
        assert report.n_clients == N_CLIENTS  # nobody is set aside for what the network does


def _sent_by(reply: Message) -> Message:
    """Return a message of which a copy of the reply is one too."""
    message = Message(RecordDict(), reply.metadata.src_node_id, "train", group_id=reply.metadata.group_id)
    message.metadata.__dict__["_message_id"] = reply.metadata.reply_to_message_id
    return message


def test_the_content_of_an_old_reply_in_a_new_one_is_told_by_the_copies() -> None:
    """It is well formed, and nobody can know it for old but by what the other holders of its shards send."""
    first: dict[str, Array] = {}

    def replay(reply: Message, partition: int) -> Message | None:
        if partition == HOSTILE:
            record = next(iter(reply.content.array_records.values()))
            first.update(dict(record) if not first else {})
            record.update(first)
        return None

    strategy = coding()
    train(strategy, steady(N_CLIENTS), rounds=8, app=shard_app(replay))
    assert {node for report in strategy.history for node in report.dissenting} == {NODE}
    assert sum(NODE not in report.node_ids for report in strategy.history) >= 2


def test_another_nodes_name_on_a_reply_is_not_taken_for_its() -> None:
    """A reply to the message of one node that says to be from another is nobody's; the node's own still counts."""
    forged: list[Message] = []

    def forge(grid: Grid) -> None:
        pull = grid.pull_messages

        def pull_messages(ids: Any) -> list[Message]:
            came = []
            for reply in pull(ids):
                if reply.metadata.src_node_id == 100:
                    copy = copy_of(reply, _sent_by(reply))
                    copy.metadata.__dict__["_src_node_id"] = NODE
                    forged.append(copy)
                    came.append(copy)
                came.append(reply)
            return came

        grid.pull_messages = pull_messages  # type: ignore[method-assign]

    strategy = coding()
    train(strategy, steady(N_CLIENTS), rounds=2, on_grid=forge)
    assert len(forged) == 2
    for report in strategy.history:
        assert report.n_arrived == N_CLIENTS
        assert report.rejected == {NODE: "not a first reply to a message of this round"}
