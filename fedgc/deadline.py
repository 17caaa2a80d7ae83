"""Deadline: push a round's messages and take whatever replies come in time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from fedgc.clock import Clock


class Mailbox(Protocol):
    """The part of a Flower ``Grid`` that carries messages."""

    def push_messages(self, messages: Iterable[Any]) -> Iterable[str]:
        """Send messages, return their ids."""

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Any]:
        """Return the replies that have come to the given messages."""


def collect_replies(grid: Mailbox, messages: Iterable[Any], *, timeout: float, clock: Clock) -> list[Any]:
    """Send `messages` and return the replies that arrive within `timeout` seconds of the sending.

    Parameters
    ----------
    grid : Grid
        A Flower grid, or anything with its push_messages and pull_messages.
    messages : iterable of Message
        The round's messages.
    timeout : float
        Seconds until the deadline; infinite to wait for every reply.
    clock : Clock
        The clock that `timeout` refers to.

    Returns
    -------
    list of Message
        Replies, error replies included, in the order in which they were found. Ends early once all have come.

    Notes
    -----
    Flower's own ``send_and_receive`` looks for replies every three seconds over HTTP and not at the deadline, so it
    cuts off up to three seconds early and returns up to three seconds late. This loop looks every poll interval of the
    clock, and once more at the deadline.
    """
    # A list, since Flower's HTTP grid does not take a generator.
    pending = {message_id for message_id in grid.push_messages(list(messages)) if message_id}
    deadline = clock.now() + timeout
    replies: list[Any] = []
    while pending:
        overdue = clock.now() >= deadline
        for reply in grid.pull_messages(pending.copy()):
            pending.discard(reply.metadata.reply_to_message_id)
            replies.append(reply)
        if overdue:
            break
        if pending:
            clock.wait(deadline)
    return replies
