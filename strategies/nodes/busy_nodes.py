"""Who is at work on an earlier message, and has to be left with it."""

from __future__ import annotations

from collections.abc import Sequence

from flwr.app import Message

from fedgc.deadline import Collected


class BusyNodes:
    """Keeps which message each node works on.

    Notes
    -----
    A node has one message at a time: Flower's Simulation Runtime would work on two at once, and lose what one of them
    writes into the node's state, and a SuperNode would work off a queue. While a message has neither been answered nor
    run out of its time to live, the node's next one is held back; it is sent when the answer comes, if there is still
    time for it. A client that goes on with a message whose time has run out cannot be known of, nor stopped.
    """

    def __init__(self) -> None:
        # By node: the message that it works on, and the instant at which that runs out.
        self._at_work: dict[int, tuple[str, float]] = {}

    def copy(self) -> BusyNodes:
        """Return the same, to go on from."""
        other = BusyNodes()
        other._at_work = dict(self._at_work)
        return other

    def by_readiness(self, batch: Sequence[Message], now: float) -> tuple[list[Message], dict[str, Message]]:
        """Return the messages to nodes that are free, and the others by the message that their nodes work on.

        Parameters
        ----------
        batch : sequence of Message
            What is to be sent.
        now : float
            The instant; what has run out by then is forgotten.
        """
        self._at_work = {node: work for node, work in self._at_work.items() if work[1] > now}
        free = [message for message in batch if message.metadata.dst_node_id not in self._at_work]
        others = [message for message in batch if message.metadata.dst_node_id in self._at_work]
        return free, {self._at_work[message.metadata.dst_node_id][0]: message for message in others}

    def note(self, batch: Sequence[Message], collected: Collected, timeout: float) -> None:
        """Take note of what has been sent of a batch, and of what has been answered within so many seconds."""
        answered = {reply.metadata.reply_to_message_id for reply, _ in collected.late}
        self._at_work = {node: work for node, work in self._at_work.items() if work[0] not in answered}
        for message in batch:
            key, node = message.metadata.message_id, message.metadata.dst_node_id
            if key in collected.sent:
                self._at_work.pop(node, None)
            if key in collected.pending:
                # Flower's messages for evaluation live for half a day, and one may be lost.
                self._at_work[node] = key, collected.sent[key] + min(message.metadata.ttl, 2.0 * timeout)
