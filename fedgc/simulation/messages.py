"""Flower's messages between the two sides of one process: copied, and dated."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

from flwr.app import ConfigRecord, Message, RecordDict

from fedgc.protocol import SERVER_ROUND
from fedgc.records.copies import copy_of_metadata, new_message, own_records


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
    for config in message.content.values():
        if isinstance(config, ConfigRecord) and SERVER_ROUND in config:
            return int(cast(int, config[SERVER_ROUND]))
    return int(message.metadata.group_id) if message.metadata.group_id.isdigit() else 0


def copy_of(message: Message) -> Message:
    """Return a message with records of its own; arrays are immutable bytes and stay shared."""
    return new_message(copy_of_metadata(message.metadata), content=own_records(message.content))


def reply_of(message: Message) -> Message:
    """Return a client's reply with records of its own, since the client may keep those that it has sent."""
    return message if message.has_error() else copy_of(message)


def as_received(job: Job) -> Message:
    """Return a job's message as if made now: a reply's time to live is counted in real time from it.

    The content is handed over, and the job left without: it was copied when the message was sent, nobody else looks at
    it, and to wait for the end of the message's time to live with the arrays of every round takes room.
    """
    received = new_message(copy_of_metadata(job.message.metadata), content=job.message.content)
    received.metadata.created_at = datetime.now(tz=UTC).timestamp()
    job.message.content = RecordDict()
    return received
