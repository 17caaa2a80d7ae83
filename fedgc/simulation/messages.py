"""Flower's messages between the two sides of one process: copied, dated, and as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

from flwr.app import Error, Message, Metadata, RecordDict

from fedgc.checkpoint import Tree
from fedgc.checkpoint.records import records_from_tree, records_to_tree
from fedgc.protocol import SERVER_ROUND

_METADATA = (
    "run_id",
    "message_id",
    "src_node_id",
    "dst_node_id",
    "reply_to_message_id",
    "group_id",
    "created_at",
    "ttl",
    "message_type",
    "src_task_id",
    "dst_task_id",
)


@dataclass(frozen=True, eq=False)
class Job:
    """A message that a client is to answer.

    Attributes
    ----------
    message : Message
        A copy of it.
    client : int
        Client index.
    server_round : int
        Round of the message.
    stream : int
        How many messages of that round the client got before.
    """

    message: Message
    client: int
    server_round: int
    stream: int


def round_of(message: Message) -> int:
    """Return the round that a message says it belongs to, 0 if it says none."""
    for config in message.content.config_records.values():
        if SERVER_ROUND in config:
            return int(cast(int, config[SERVER_ROUND]))
    return int(message.metadata.group_id) if message.metadata.group_id.isdigit() else 0


def copy_of(message: Message) -> Message:
    """Return a message with records of its own; arrays are immutable bytes and stay shared."""
    content = RecordDict()
    for name, record in message.content.items():
        content[name] = type(record)(dict(record))  # type: ignore[arg-type]
    return _message(_metadata(message.metadata), content=content)


def as_received(message: Message) -> Message:
    """Return the message as if made now: a reply's time to live is counted in real time from it."""
    received = copy_of(message)
    received.metadata.created_at = datetime.now(tz=UTC).timestamp()
    return received


def message_to_tree(message: Message, *, content: bool = True) -> Tree:
    """Return a message as plain data, with its content or without."""
    tree = {"metadata": {name: getattr(message.metadata, name) for name in _METADATA}}
    if message.has_error():
        return {**tree, "error": (message.error.code, message.error.reason)}
    return {**tree, "content": records_to_tree(message.content if content else RecordDict())}


def message_from_tree(tree: Tree) -> Message:
    """Return the message that :func:`message_to_tree` wrote."""
    metadata = Metadata(**tree["metadata"])
    if "error" in tree:
        return _message(metadata, error=Error(*tree["error"]))
    return _message(metadata, content=records_from_tree(tree["content"]))


def _message(metadata: Metadata, **carried: RecordDict | Error) -> Message:
    # The keyword `metadata` is how Flower's own runtimes rebuild a message; it is not among its documented overloads.
    made: Message = Message(metadata=metadata, **carried)  # type: ignore[call-overload]
    return made


def _metadata(source: Metadata) -> Metadata:
    return Metadata(**{name: getattr(source, name) for name in _METADATA})
