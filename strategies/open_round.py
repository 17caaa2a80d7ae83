"""A round between its sending and its decoding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from fedgc.strategies.replies import read_reply
from fedgc.strategies.tasks import ClientTask
from flwr.app import ArrayRecord, Message, MetricRecord
from numpy.typing import NDArray

from fedgc.encoding import Arrays
from fedgc.errors import ReplyRejectedError
from fedgc.round import CodedUpdate, RoundPlan


@dataclass(frozen=True, eq=False)
class OpenRound:
    """What was sent, and what its replies amount to: a silent client is the plan minus the replies.

    Attributes
    ----------
    plan : RoundPlan
        The round's plan.
    tasks : list of ClientTask
        What each client was told to do.
    arrays : ArrayRecord
        The global arrays.
    messages : list of Message
        The messages, by client.
    deadline : float
        Seconds that the round may last.
    known_sizes : ndarray, shape (n_shards,)
        Number of examples of each shard, NaN where the server was not told.
    """

    plan: RoundPlan
    tasks: list[ClientTask]
    arrays: ArrayRecord
    messages: list[Message]
    deadline: float
    known_sizes: NDArray[np.float64]
    _rows: dict[str, list[int]] = field(default_factory=dict)

    @cached_property
    def values(self) -> Arrays:
        """The global arrays as numpy arrays."""
        return {name: array.numpy() for name, array in self.arrays.items()}

    def client_of(self, reply: Message) -> int | None:
        """Return the client that a reply is from, None if it is to no message of this round."""
        ids = {message.metadata.message_id: client for client, message in enumerate(self.messages)}
        return ids.get(reply.metadata.reply_to_message_id)

    def read(
        self, replies: Iterable[Message], seconds: Mapping[str, float]
    ) -> tuple[dict[int, tuple[CodedUpdate, MetricRecord]], dict[int, str]]:
        """Return what each client sent, by client index, and why other replies are left out, by node id.

        Parameters
        ----------
        replies : iterable of Message
            The replies, in order of arrival.
        seconds : mapping of str to float
            Seconds after which each came, by the id of its message; those of others are not known.
        """
        accepted: dict[int, tuple[CodedUpdate, MetricRecord]] = {}
        rejected: dict[int, str] = {}
        for reply in replies:
            client = self.client_of(reply)
            # An error reply of the network itself comes from the SuperLink's id, so the message tells who is meant.
            node_id = reply.metadata.src_node_id if client is None else self.plan.node_ids[client]
            try:
                if client is None or client in accepted:
                    raise ReplyRejectedError("not a first reply to a message of this round")
                waited = seconds.get(reply.metadata.reply_to_message_id)
                accepted[client] = read_reply(reply, self.values, self.tasks[client], self.known_sizes, waited)
            except ReplyRejectedError as reason:
                rejected[node_id] = str(reason)
        return accepted, rejected

    def settled(self, replies: Sequence[Message]) -> bool:
        """Return whether the replies so far settle the round.

        Each reply is read in full, once: one that will be left out must not end the round before the copies of what it
        claims to bring have come.
        """
        if not self.plan.decoder.ends_early:
            return False
        new = [reply for reply in replies if reply.metadata.reply_to_message_id not in self._rows]
        for reply in new:
            accepted, _ = self.read([reply], {})
            rows = [row for update, _ in accepted.values() for row in update.sums]
            self._rows[reply.metadata.reply_to_message_id] = rows
        arrived = np.zeros(self.plan.decoder.code.n_rows, dtype=np.bool_)
        for rows in self._rows.values():
            arrived[rows] = True
        return self.plan.decoder.settled(arrived)
