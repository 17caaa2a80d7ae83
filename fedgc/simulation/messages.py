"""Flower's messages between the two sides of one process: copied, and dated."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

from flwr.app import Message, RecordDict

from fedgc.protocol import SERVER_ROUND
from fedgc.simulation.records import copy_of_metadata, new_message


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
    expires : float
        Virtual instant at which its time to live ends.
    """

    message: Message
    client: int
    server_round: int
    stream: int
    expires: float


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
    return new_message(copy_of_metadata(message.metadata), content=content)


def as_received(message: Message) -> Message:
    """Return the message as if made now: a reply's time to live is counted in real time from it."""
    received = copy_of(message)
    received.metadata.created_at = datetime.now(tz=UTC).timestamp()
    return received
