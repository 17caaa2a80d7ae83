"""A round that is over, of which something may still be heard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from fedgc.strategies.messages.reply_limits import drop_all, one_line
from fedgc.strategies.rounds.open_round import OpenRound
from flwr.app import Message

from fedgc.deadline import Collected
from fedgc.errors import ReplyRejectedError, ReplyTooLargeError
from fedgc.memory import MemoryStore
from fedgc.round import CodedUpdate, Copies, LateReplies


@dataclass(frozen=True, eq=False)
class PastRound:
    """A round that has been decoded and the clients that had not answered by then.

    Attributes
    ----------
    round : OpenRound
        The round.
    collected : Collected
        How it ended.
    silent : mapping of str to int
        Client by the id of the message that it has not answered.
    store : MemoryStore or None
        Where sums are kept, if there is a memory to refresh.
    replies : dict of int to CodedUpdate
        What they have sent since, by client index; with its sums only where there is a store.
    answered : dict of int to float
        Seconds after which they answered, if only with something that is left out.
    rejected : dict of int to str
        Why that is left out, by node id.
    copies : Copies or None
        What has come of the round, compared; None if the server has only the sum.
    """

    round: OpenRound
    collected: Collected
    silent: Mapping[str, int]
    store: MemoryStore | None = None
    replies: dict[int, CodedUpdate] = field(default_factory=dict)
    answered: dict[int, float] = field(default_factory=dict)
    rejected: dict[int, str] = field(default_factory=dict)
    copies: Copies | None = None

    @classmethod
    def of(cls, current: OpenRound, collected: Collected) -> PastRound:
        """Return the round with those whose messages are pending."""
        ids = {message.metadata.message_id: client for client, message in enumerate(current.messages)}
        silent = {key: ids[key] for key in sorted(collected.pending) if key in ids}
        store = None if current.state.memory is None else current.state.memory.store
        # Not the state, which would keep what has been remembered until then for another round.
        known = replace(current, state=replace(current.state, memory=None))
        return cls(known, collected, silent, store, copies=None if current.sum_only else current.fold.copies)

    def take(self, reply: Message, instant: float) -> None:
        """Read what a silent client has sent, found at that instant. Its arrays are not needed any more afterwards."""
        client = self.silent.get(reply.metadata.reply_to_message_id)
        if client is None or client in self.replies or not self.round.is_from(reply, client):
            return
        self.answered[client] = seconds = instant - self.collected.sent[reply.metadata.reply_to_message_id]
        try:
            update, _ = self.round.read(reply, client, seconds)
            update = self.round.sizes.agree(self.round.plan.node_ids[client], update)
        except ReplyRejectedError as reason:
            self.rejected[self.round.plan.node_ids[client]] = one_line(reason)
            if isinstance(reason, ReplyTooLargeError):
                drop_all(reply)
            return
        if self.copies is not None and not self.round.plan.in_a_row:
            for row, total in update.sums.items():
                self.copies.note(client, row, total)
        kept = {} if self.store is None else {row: self.store.keep(total) for row, total in update.sums.items()}
        self.replies[client] = replace(update, sums=kept)

    def held_back(self) -> list[int]:
        """Return the clients whose message was not sent, as they were still at work on another: it says nothing."""
        return [c for c, m in enumerate(self.round.messages) if m.metadata.message_id not in self.collected.sent]

    def heard(self, now: float) -> LateReplies:
        """Return what has been heard until now.

        Notes
        -----
        A client that has still not answered is known to take longer than until now, or than its message was valid. One
        whose message came to nothing (a node that has gone, say) was not waited for any longer than until that was
        told.
        """
        silent = {
            client: self.answered.get(
                client, min(now - self.collected.sent[key], self.round.messages[client].metadata.ttl)
            )
            for key, client in self.silent.items()
            if client not in self.replies
        }
        return LateReplies(self.round.plan, self.replies, silent)
