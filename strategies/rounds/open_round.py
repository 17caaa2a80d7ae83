"""A round between its sending and its decoding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from fedgc.strategies.messages.reply_limits import drop_all, drop_arrays, one_line, scalars
from fedgc.strategies.rounds.sent_round import SentRound
from flwr.app import Message, MetricRecord

from fedgc.errors import NothingToReadError, ReplyRejectedError, ReplyTooLargeError
from fedgc.protocol import NUM_EXAMPLES
from fedgc.round import CodedUpdate, RoundFold
from fedgc.updates import is_shorter

#: Sums of replies are looked into if an array of them, per example, is as long as this.
_UNSUSPICIOUS = 1e10
#: Where no shard's size is known, so many replies are waited for before any is taken in: sizes can only be held against
#: each other, and a reply that has been added to the others' sum could not be taken out of it. More would be in memory
#: together: of three the median would be right if two are, but a server has room for five models.
_FIRST_REPLIES = 2


class _Waiting(NamedTuple):
    """A reply that has been read, and waits for others to hold its sizes against."""

    reply: Message
    client: int
    update: CodedUpdate
    metrics: MetricRecord


@dataclass(frozen=True, eq=False)
class OpenRound(SentRound):
    """What was sent, and what its replies amount to: a silent client is the plan minus the replies.

    Attributes
    ----------
    metrics : dict of int to MetricRecord
        Metrics of the replies that have been taken in, those that are plain numbers, by client index.
    rejected : dict of int to str
        Why others were left out, by node id.
    bad : set of int
        Nodes that sent what cannot be used, as opposed to those of which nothing came.
    failed : set of int
        Clients whose reply cannot be used, or is an error: they will not come any more, however early the round ends.
    """

    metrics: dict[int, MetricRecord] = field(default_factory=dict)
    rejected: dict[int, str] = field(default_factory=dict)
    bad: set[int] = field(default_factory=set)
    failed: set[int] = field(default_factory=set)
    _taken: set[int] = field(default_factory=set)
    _waiting: list[_Waiting] = field(default_factory=list)

    @cached_property
    def fold(self) -> RoundFold:
        """What the replies that have been taken in amount to."""
        return RoundFold(self.state, self.plan, self.values, self.secret, self.settings.second_moment)

    @property
    def sum_only(self) -> bool:
        """Whether the server has nothing but the sum of the replies."""
        return False

    @property
    def why_no_update(self) -> str:
        """Why the round has none, if it has none."""
        replies = self.fold.replies.values()
        if any(reply.shards.size for reply in replies):
            done = sum(bool(reply.shards.size) for reply in replies)
            return f"no shard of the {done} replies that can be used has any examples"
        if replies:
            return f"no shard was done by the deadline, as {len(replies)} replies say"
        if self.rejected:
            return f"none of the {len(self.rejected)} replies that came can be used"
        return "nothing arrived by the deadline"

    def take(self, reply: Message, seconds: float | None = None) -> bool:
        """Read a reply, once, and fold it into the round, or note why it is left out.

        Parameters
        ----------
        reply : Message
            The reply.
        seconds : float, optional
            Seconds after which it came.

        Returns
        -------
        bool
            Whether it has been worked off, and its arrays are not needed any more. If not, others are waited for to
            hold its sizes against, after which its arrays are dropped.
        """
        self._take(reply, seconds, drop=True)
        return all(waiting.reply is not reply for waiting in self._waiting)

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
            trial = replace(
                self,
                metrics={},
                rejected={},
                bad=set(),
                failed=set(),
                sizes=self.sizes.copy(),
                _taken=set(),
                _waiting=[],
            )
            with np.errstate(over="ignore", invalid="ignore"):
                sound = [trial._take(reply, after, trusted=True) for reply, after in came]
                sound.append(trial._fold_waiting(trusted=True))
                if all(sound) and trial.fold.decodes_to_less_than(_UNSUSPICIOUS):
                    return trial
        for reply, after in came:
            self._take(reply, after)
        self._fold_waiting()
        return self

    def _take(self, reply: Message, seconds: float | None, *, trusted: bool = False, drop: bool = False) -> bool:
        """Take a reply; if it is trusted, return whether what is not added of it is nothing to look into."""
        if id(reply) in self._taken:
            return True
        self._taken.add(id(reply))
        client = self.client_of(reply)
        try:
            if client is None or client in self.fold.replies or any(one.client == client for one in self._waiting):
                raise ReplyRejectedError("not a first reply to a message of this round")
            update, metrics = self.read(reply, client, seconds, trusted=trusted)
            if self.sizes.nothing_known and update.shards.size:
                self._waiting.append(_Waiting(reply, client, update, metrics))
                enough = len(self._waiting) >= min(_FIRST_REPLIES, len(self.messages))
                return self._fold_waiting(trusted=trusted, drop=drop) if enough else True
            update = self.sizes.agree(self.plan.node_ids[client], update)
        except ReplyRejectedError as reason:
            self._leave_out(reply, client, reason)
            if isinstance(reason, ReplyTooLargeError) and not trusted:
                drop_all(reply)
            return True
        return self._fold(client, update, metrics, trusted=trusted)

    def _fold_waiting(self, *, trusted: bool = False, drop: bool = False) -> bool:
        """Fold the replies that have waited for each other, but those whose sizes are absurd beside the others'."""
        waiting = list(self._waiting)
        self._waiting.clear()
        sound = True
        for one in waiting:
            self.sizes.typical.set(self.plan.node_ids[one.client], one.update.shard_examples)
        for one in waiting:
            try:
                update = self.sizes.agree(self.plan.node_ids[one.client], one.update)
            except ReplyRejectedError as reason:
                self._leave_out(one.reply, one.client, reason)
                continue
            sound = self._fold(one.client, update, one.metrics, trusted=trusted) and sound
            if drop:
                drop_arrays(one.reply)
        return sound

    def _leave_out(self, reply: Message, client: int | None, reason: ReplyRejectedError) -> None:
        # An error reply of the network itself comes from the SuperLink's id, so the message tells who is meant.
        node_id = reply.metadata.src_node_id if client is None else self.plan.node_ids[client]
        self.rejected[node_id] = one_line(reason)
        if client is not None:
            self.failed.add(client)
            if not isinstance(reason, NothingToReadError):
                self.bad.add(node_id)

    def _fold(self, client: int, update: CodedUpdate, metrics: MetricRecord, *, trusted: bool) -> bool:
        copies = self.fold.add(client, update, lasting=trusted)
        self.metrics[client] = scalars(metrics)
        # Metrics are averaged by it, and a client must not have more say there than its shards are taken to have.
        self.metrics[client][NUM_EXAMPLES] = int(update.shard_examples.sum())
        return not trusted or all(is_shorter(update.sums[row], _UNSUSPICIOUS) for row in copies)

    def settled(self) -> bool:
        """Return whether what has been taken in settles the round."""
        if not self.plan.decoder.ends_early:
            return False
        arrived = self.fold.arrived.copy()
        for waiting in self._waiting:
            arrived[list(waiting.update.sums)] = True
        if not self.plan.decoder.settled(arrived):
            return False
        # Nobody else is waited for any more.
        return not self._waiting or (self._fold_waiting(drop=True) and self.plan.decoder.settled(self.fold.arrived))
