"""A round between its sending and its decoding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import cast

import numpy as np
from fedgc.strategies.arrays import bound, views
from fedgc.strategies.replies import read_reply
from fedgc.strategies.reply_limits import drop_all, one_line, scalars
from fedgc.strategies.tasks import ClientTask
from flwr.app import ArrayRecord, Message, MetricRecord
from numpy.typing import NDArray

from fedgc.errors import NothingToReadError, ReplyRejectedError, ReplyTooLargeError
from fedgc.protocol import BUDGET, RECORD
from fedgc.round import CodedUpdate, RoundFold, RoundPlan, RoundState
from fedgc.updates import Arrays, is_shorter

#: Sums of replies are looked into if an array of them, per example, is as long as this.
_UNSUSPICIOUS = 1e10
#: Sizes of shards that are learnt from replies may grow by this factor, and be at most so large where nothing is known:
#: a wrong one would be the weight of a shard.
_GROWTH, _MOST_EXAMPLES = 1000.0, 1e9


@dataclass(frozen=True, eq=False)
class OpenRound:
    """What was sent, and what its replies amount to: a silent client is the plan minus the replies.

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
    known_sizes : ndarray, shape (n_shards,)
        Number of examples of each shard, NaN where the server was not told.
    state : RoundState
        What the plan was made from.
    secret : int
        Seed of the entries by which copies are compared, which clients must not know while they work.
    metrics : dict of int to MetricRecord
        Metrics of the replies that have been taken in, those that are plain numbers, by client index.
    rejected : dict of int to str
        Why others were left out, by node id.
    bad : set of int
        Nodes that sent what cannot be used, as opposed to those of which nothing came.
    """

    server_round: int
    plan: RoundPlan
    tasks: list[ClientTask]
    arrays: ArrayRecord
    messages: list[Message]
    deadline: float
    known_sizes: NDArray[np.float64]
    state: RoundState
    secret: int = 0
    metrics: dict[int, MetricRecord] = field(default_factory=dict)
    rejected: dict[int, str] = field(default_factory=dict)
    bad: set[int] = field(default_factory=set)
    _taken: set[int] = field(default_factory=set)
    _client_by_message: dict[str, int] = field(default_factory=dict)

    @cached_property
    def values(self) -> Arrays:
        """The global arrays as numpy arrays, read-only."""
        return views(self.arrays)

    @cached_property
    def fold(self) -> RoundFold:
        """What the replies that have been taken in amount to."""
        return RoundFold(self.state, self.plan, self.values, self.secret)

    @property
    def sum_only(self) -> bool:
        """Whether the server has nothing but the sum of the replies."""
        return False

    @property
    def why_no_update(self) -> str:
        """Why the round has none, if it has none."""
        return "nothing arrived by the deadline"

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

    def take(self, reply: Message, seconds: float | None = None) -> None:
        """Read a reply, once, and fold it into the round, or note why it is left out.

        Parameters
        ----------
        reply : Message
            The reply. Its arrays are not needed any more afterwards.
        seconds : float, optional
            Seconds after which it came.
        """
        self._take(reply, seconds)

    def with_all(self, replies: Iterable[Message], seconds: Mapping[str, float]) -> OpenRound:
        """Return the round with all its replies taken in, of which the arrays stay there until it is decoded.

        Parameters
        ----------
        replies : iterable of Message
            The replies; those that have been taken before are passed over.
        seconds : mapping of str to float
            Seconds after which each came, by the id of the message that it answers, as far as known.

        Notes
        -----
        What is not finite in a reply, or absurdly large, shows in the sum of all. So each is read only once, to be
        added; only if something shows, it is looked for in one after the other, as :meth:`take` does.
        """
        came = [(reply, seconds.get(reply.metadata.reply_to_message_id)) for reply in replies]
        if not self._taken and self.state.memory is None and not self.sum_only:
            trial = replace(self, metrics={}, rejected={}, bad=set(), _taken=set())
            with np.errstate(over="ignore", invalid="ignore"):
                sound = [trial._take(reply, after, trusted=True) for reply, after in came]
                if all(sound) and trial.fold.decodes_to_less_than(_UNSUSPICIOUS):
                    return trial
        for reply, after in came:
            self.take(reply, after)
        return self

    def _take(self, reply: Message, seconds: float | None, *, trusted: bool = False) -> bool:
        """Take a reply; if it is trusted, return whether what is not added of it is nothing to look into."""
        if id(reply) in self._taken:
            return True
        self._taken.add(id(reply))
        client = self.client_of(reply)
        try:
            if client is None or client in self.fold.replies:
                raise ReplyRejectedError("not a first reply to a message of this round")
            update, metrics = self.read(reply, client, seconds, trusted=trusted)
            self._check_sizes(update)
        except ReplyRejectedError as reason:
            # An error reply of the network itself comes from the SuperLink's id, so the message tells who is meant.
            node_id = reply.metadata.src_node_id if client is None else self.plan.node_ids[client]
            self.rejected[node_id] = one_line(reason)
            if client is not None and not isinstance(reason, NothingToReadError):
                self.bad.add(node_id)
            if isinstance(reason, ReplyTooLargeError) and not trusted:
                drop_all(reply)
            return True
        copies = self.fold.add(client, update, lasting=trusted)
        self.metrics[client] = scalars(metrics)
        return not trusted or all(is_shorter(update.sums[row], _UNSUSPICIOUS) for row in copies)

    def read(
        self, reply: Message, client: int, seconds: float | None, *, trusted: bool = False
    ) -> tuple[CodedUpdate, MetricRecord]:
        """Return what a client sent; see :func:`fedgc.strategies.replies.read_reply`."""
        bounds = None if trusted else self._bounds
        return read_reply(reply, self.values, self.tasks[client], self.known_sizes, seconds, bounds=bounds)

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

    def _check_sizes(self, update: CodedUpdate) -> None:
        """Check the number of examples that a client says its shards have against what others have said."""
        said, known = update.shard_examples, self._sizes_so_far[update.shards]
        most = np.where(np.isfinite(known), _GROWTH * np.maximum(known, 1.0), _MOST_EXAMPLES)
        for shard, count, before, limit in zip(update.shards, said, known, most, strict=True):
            if count > limit or (count == 0.0 and before > 0.0):
                raise ReplyRejectedError(
                    f"examples of shard {shard} must be from 1 to {limit:g}, as others have said; got {count:g}"
                )
        self._sizes_so_far[update.shards] = said

    @cached_property
    def _sizes_so_far(self) -> NDArray[np.float64]:
        return self.state.shard_examples.copy()

    @cached_property
    def _bounds(self) -> dict[str, float]:
        return {name: bound(value) for name, value in self.values.items()}

    def settled(self) -> bool:
        """Return whether what has been taken in settles the round."""
        return self.plan.decoder.ends_early and self.plan.decoder.settled(self.fold.arrived)
