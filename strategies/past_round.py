"""A round that is over, of which something may still be heard."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fedgc.strategies.open_round import OpenRound
from flwr.app import Message

from fedgc.deadline import Collected
from fedgc.round import CodedUpdate, LateReplies


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
    """

    round: OpenRound
    collected: Collected
    silent: Mapping[str, int]

    @classmethod
    def of(cls, current: OpenRound, collected: Collected) -> PastRound:
        """Return the round with those whose messages are pending."""
        ids = {message.metadata.message_id: client for client, message in enumerate(current.messages)}
        return cls(current, collected, {key: ids[key] for key in collected.pending if key in ids})

    def heard(self, late: Iterable[tuple[Message, float]], now: float) -> tuple[LateReplies, dict[int, str]]:
        """Return what the silent clients have sent since, and why other replies are left out, by node id.

        Parameters
        ----------
        late : iterable of (Message, float)
            Replies and the instants at which they came.
        now : float
            The instant until which replies were looked for.

        Notes
        -----
        A client that has still not answered is known to take longer than until now, or than its message was valid. One
        whose message came to nothing (a node that has gone, say) was not waited for any longer than until that was
        told.
        """
        start = self.collected.started
        listened = {
            client: min(now - start, self.round.messages[client].metadata.ttl) for client in self.silent.values()
        }
        replies: dict[int, CodedUpdate] = {}
        rejected: dict[int, str] = {}
        for message, instant in late:
            client = self.silent.get(message.metadata.reply_to_message_id)
            if client is None:
                continue
            seconds = instant - start
            accepted, refused = self.round.read([message], {message.metadata.reply_to_message_id: seconds})
            rejected |= refused
            if client in accepted:
                replies[client] = accepted[client][0]
            listened[client] = seconds
        silent = {client: seconds for client, seconds in listened.items() if client not in replies}
        return LateReplies(self.round.plan, replies, silent), rejected
