"""Push a round's messages and take whatever replies come in time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from fedgc.clock import Clock

#: Seconds after the deadline in which replies that are there by then are still fetched.
_GRACE = 0.25


class Mailbox(Protocol):
    """The part of a Flower ``Grid`` that carries messages."""

    def push_messages(self, messages: Iterable[Any]) -> Iterable[str]:
        """Send messages, return their ids."""

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Any]:
        """Return the replies that have come to the given messages."""


@dataclass(frozen=True, eq=False)
class Collected:
    """What came in a round, and when.

    Attributes
    ----------
    replies : list of Message
        Replies, error replies included, in the order in which they were found.
    seconds : list of float
        Seconds from the sending of its message to each reply.
    waited : float
        Seconds from the first sending to the end of the round.
    pending : set of str
        Ids of the messages without a reply.
    started : float
        Instant of the first sending, by the clock.
    sent : dict of str to float
        Instant at which each message was sent, by its id; messages that were held back to the end are missing.
    late : list of (Message, float)
        Replies to messages of earlier rounds and the instants at which they were found.
    """

    replies: list[Any]
    seconds: list[float]
    waited: float
    pending: set[str]
    started: float
    sent: dict[str, float]
    late: list[tuple[Any, float]]


def collect_replies(
    grid: Mailbox,
    messages: Iterable[Any],
    *,
    timeout: float,
    clock: Clock,
    enough: Callable[[Sequence[Any]], bool] = lambda replies: False,
    earlier: Collection[str] = (),
    held: Mapping[str, Any] | None = None,
    on_send: Callable[[Any, float], bool] = lambda message, seconds: True,
    on_reply: Callable[[Any, float], None] = lambda reply, seconds: None,
    on_late: Callable[[Any, float], None] = lambda reply, instant: None,
    at_once: int | None = None,
) -> Collected:
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
    enough : callable
        Asked, whenever replies have come, with all replies so far whether the round may end early. It ends in any case
        once all messages have been answered.
    earlier : collection of str
        Ids of messages of earlier rounds; replies to them, and to those that `held` names, are kept apart and end
        nothing.
    held : mapping of str to Message, optional
        Messages to be sent only once there is a reply to another one, by the id of that: those of nodes that are still
        at work.
    on_send : callable
        Called with each of these before it is sent, and the seconds since the first sending. If it returns False, the
        message is not sent any more.
    on_reply : callable
        Called with each reply as it is found, and its seconds: what is large in it may be worked off and dropped.
    on_late : callable
        Likewise with replies to earlier messages, and their instants.
    at_once : int, optional
        Replies are asked for so many messages at a time, so that not too many are in memory at once; by default for
        all.

    Notes
    -----
    Flower's own ``send_and_receive`` looks for replies every three seconds over HTTP and not at the deadline, so it
    cuts off up to three seconds early and returns up to three seconds late. This loop looks every poll interval of the
    clock, and once more at the deadline. A grid may fetch replies one by one, as they are iterated over; should there
    be so many at the deadline, or the machine so busy, that this takes longer than a moment, the rest are late.
    """
    # A list, since Flower's HTTP grid does not take a generator.
    ids = [message_id for message_id in grid.push_messages(list(messages)) if message_id]
    start = clock.now()
    pending, sent, waiting = set(ids), dict.fromkeys(ids, start), dict(held or {})
    replies: list[Any] = []
    seconds: list[float] = []
    late: list[tuple[Any, float]] = []
    unheard = set(earlier)
    # Kept beside the three that it is made of: to unite them at every look would take, over a round, the square of the
    # number of clients.
    wanted = pending | unheard | waiting.keys()

    def too_late() -> bool:
        return clock.now() >= start + timeout + _GRACE

    while pending or waiting:
        overdue = clock.now() >= start + timeout
        before = len(replies)
        heard: list[str] = []
        added: list[str] = []
        for reply in _pull(grid, wanted, at_once, too_late):
            message_id, now = reply.metadata.reply_to_message_id, clock.now()
            heard.append(message_id)
            next_one = waiting.pop(message_id, None)
            if next_one is not None and not overdue and on_send(next_one, now - start):
                new = [new_id for new_id in grid.push_messages([next_one]) if new_id]
                sent.update(dict.fromkeys(new, now))
                pending.update(new)
                added += new
            if message_id in unheard or next_one is not None:
                unheard.discard(message_id)
                on_late(reply, now)
                late.append((reply, now))
            else:
                # What answers no message of this round, whoever sent it, is for the caller to leave out.
                pending.discard(message_id)
                seconds.append(now - sent.get(message_id, start))
                on_reply(reply, seconds[-1])
                replies.append(reply)
        # Only now, since a grid may be looking through them while its replies are taken.
        wanted.difference_update(heard)
        wanted.update(added)
        if overdue or too_late() or (len(replies) > before and enough(replies)):
            break
        if pending or waiting:
            clock.wait(start + timeout)
    return Collected(replies, seconds, clock.now() - start, pending, start, sent, late)


def _pull(grid: Mailbox, message_ids: set[str], at_once: int | None, too_late: Callable[[], bool]) -> Iterator[Any]:
    for part in _parts(message_ids, at_once):
        pulled = grid.pull_messages(part)
        for reply in pulled:
            yield reply
            # What a grid has put into a list has been fetched; otherwise each takes its time, and the rest is late.
            if isinstance(pulled, Iterator) and too_late():
                return
        if too_late():
            return


def _parts(message_ids: set[str], at_once: int | None) -> Iterator[set[str]]:
    if at_once is None or len(message_ids) <= at_once:
        if message_ids:
            yield message_ids
        return
    ids = list(message_ids)
    for start in range(0, len(ids), at_once):
        yield set(ids[start : start + at_once])
