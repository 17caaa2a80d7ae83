"""What was sent in a round, and how a reply to it is read."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import cast

import numpy as np
from fedgc.strategies.messages.arrays import bound
from fedgc.strategies.messages.client_task import ClientTask
from fedgc.strategies.messages.packed_replies import read_packed_sum
from fedgc.strategies.messages.replies import read_reply
from fedgc.strategies.rounds.clock_claims import with_a_clock_that_can_be
from fedgc.strategies.rounds.round_settings import RoundSettings
from fedgc.strategies.rounds.size_claims import SizeClaims
from flwr.app import ArrayRecord, Message, MetricRecord
from numpy.typing import NDArray

from fedgc.errors import ReplyRejectedError
from fedgc.protocol import BUDGET, RECORD, rounding_seed
from fedgc.records.array_bytes import views
from fedgc.round import CodedUpdate, RoundPlan, RoundState
from fedgc.updates import Arrays

logger = logging.getLogger("flwr.fedgc")


@dataclass(frozen=True, eq=False)
class SentRound:
    """What was sent.

    Attributes
    ----------
    server_round : int
        The round's number.
    plan : RoundPlan
        Its plan.
    tasks : list of ClientTask
        What each client was told to do.
    arrays : ArrayRecord
        The global arrays.
    messages : list of Message
        The messages, by client.
    deadline : float
        Seconds that the round may last.
    settings : RoundSettings
        What it was sent by, and its replies are read by.
    state : RoundState
        What the plan was made from.
    sizes : SizeClaims
        Numbers of examples, as far as replies have told them.
    secret : int
        Seed of the entries by which copies are compared, which clients must not know while they work.
    """

    server_round: int
    plan: RoundPlan
    tasks: list[ClientTask]
    arrays: ArrayRecord
    messages: list[Message]
    deadline: float
    settings: RoundSettings
    state: RoundState
    sizes: SizeClaims
    secret: int = 0
    _doubted: set[int] = field(default_factory=set)
    _client_by_message: dict[str, int] = field(default_factory=dict)

    @cached_property
    def values(self) -> Arrays:
        """The global arrays as numpy arrays, read-only."""
        return views(self.arrays)

    def client_of(self, reply: Message) -> int | None:
        """Return the client that a reply is from, None if it is to no message of this round, or to another client's."""
        key = reply.metadata.reply_to_message_id
        if key not in self._client_by_message:
            # Messages get their ids when they are sent, and some are held back.
            self._client_by_message.update({m.metadata.message_id: client for client, m in enumerate(self.messages)})
            self._client_by_message.pop("", None)
        client = self._client_by_message.get(key)
        return None if client is None or not self.is_from(reply, client) else client

    def is_from(self, reply: Message, client: int) -> bool:
        """Return whether a reply is from a client's node; errors may be from the network, and are taken to be."""
        return reply.has_error() or reply.metadata.src_node_id == self.plan.node_ids[client]

    def most_in_a_reply(self) -> tuple[int, int]:
        """Return the most sums and the most shards that any client's reply may be of."""
        return max(task.most_sums for task in self.tasks), max(task.shards.size for task in self.tasks)

    def may_still_send(self, message: Message, seconds: float) -> bool:
        """Return whether a message that was held back for so many seconds is of use, with its budget cut by them."""
        assignment = message.content.config_records[RECORD]
        if BUDGET in assignment:
            assignment[BUDGET] = cast(float, assignment[BUDGET]) - seconds
        return min(self.deadline - seconds, cast(float, assignment.get(BUDGET, np.inf))) > 0.0

    def read(
        self, reply: Message, client: int, seconds: float | None, *, trusted: bool = False
    ) -> tuple[CodedUpdate, MetricRecord]:
        """Return what a client sent; see :func:`fedgc.strategies.messages.replies.read_reply`."""
        bounds = None if trusted else self._bounds
        quantiser, known_sizes = self.settings.quantiser, self.settings.known_sizes
        read_other = None if quantiser is None else partial(self._read_packed, client=client, bounds=bounds)
        read = read_reply(
            reply, self.values, self.tasks[client], known_sizes, seconds, bounds=bounds, read_other=read_other
        )
        return self.believed(read[0], client), read[1]

    def _read_packed(
        self,
        record: ArrayRecord,
        arrays: Arrays,
        n_examples: float,
        shards: NDArray[np.intp],
        *,
        client: int,
        bounds: Mapping[str, float] | None,
    ) -> Arrays:
        quantiser, rounder = self.settings.quantiser, None
        assert quantiser is not None
        if self.plan.bits is not None:
            quantiser, rounder = quantiser.with_bits(int(self.plan.bits[client])), client
        seed = rounding_seed(self.settings.seed, self.server_round, shards.tolist(), rounder)
        return read_packed_sum(record, arrays, n_examples, quantiser=quantiser, seed=seed, bounds=bounds)

    def can_read(self, reply: Message) -> bool:
        """Return whether a reply is one of this round that can be read; nothing is taken in."""
        client = self.client_of(reply)
        try:
            if client is None:
                return False
            self.read(reply, client, None)
        except ReplyRejectedError:
            return False
        return True

    def believed(self, update: CodedUpdate, client: int) -> CodedUpdate:
        """Return what a client sent without its own times, if these cannot be; the log tells who, and why."""
        update, reason = with_a_clock_that_can_be(update)
        node_id = self.plan.node_ids[client]
        if reason is not None and node_id not in self._doubted:
            self._doubted.add(node_id)
            logger.warning("round %d: node %d's own times are not used: %s", self.server_round, node_id, reason)
        return update

    @cached_property
    def _bounds(self) -> dict[str, float]:
        return {name: bound(value) for name, value in self.values.items()}
