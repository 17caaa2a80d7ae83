"""A grid whose send_and_receive keeps the round's deadline, whatever Flower runtime is behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from flwr.app import ArrayRecord, Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from fedgc.clock import Clock, WallClock
from fedgc.deadline import Collected, collect_replies
from fedgc.protocol import RECORD, SHARD_IDS

#: Bytes of arrays that replies which are asked for together may have.
_BYTES_AT_ONCE = 2**26


def clock_of(grid: Grid) -> Clock:
    """Return the clock that a grid lives by: its own if it has one, else the wall clock."""
    clock: Clock | None = getattr(grid, "clock", None)
    return clock if clock is not None else WallClock()


class DeadlineGrid(Grid):
    """Wrap a grid so that Flower's own training loop meets exact deadlines.

    Flower's ``Strategy.start`` is a good loop whose one fault here is that the grid's ``send_and_receive`` decides when
    a round ends. Replacing that one method keeps the loop, and whatever Flower adds to it, in place of a copy of it.

    Parameters
    ----------
    grid : Grid
        The runtime's grid.
    train_timeout : callable
        Seconds that training messages may take, asked anew in every round.
    enough : callable
        Asked whether what has come so far may end a training round.
    on_reply : callable
        Called with each reply to a training message as it comes, and its seconds. If it returns True the reply has been
        worked off, and its arrays are dropped.
    on_late : callable
        Likewise with each reply to a training message of an earlier round, and the instant.
    on_send : callable
        Called with each message that was held back, before it is sent, and by how many seconds.
    only_work : bool
        Whether only those replies to training messages are returned that have work in them, and the others kept back.
        If there is none, an error is returned.

    Attributes
    ----------
    collected : Collected or None
        What came in the last training round, and when.
    kept_back : list of Message
        Replies that it did not return.
    earlier : set of str
        Ids of messages of past rounds whose replies are still of interest.
    late : list of (Message, float)
        Replies to these, with the instants at which they were found.
    one_at_a_time : bool
        Whether messages are held back from nodes that are at work; not in the embedded runtime.
    at_once : int or None
        How many messages replies are asked for at a time; None for all.

    Notes
    -----
    A node has one message at a time: Flower's Simulation Runtime would work on two at once, and lose what one of them
    writes into the node's state, and a SuperNode would work off a queue. While a message has neither been answered nor
    run out of its time to live, the node's next one is held back; it is sent when the answer comes, if there is still
    time for it. A client that goes on with a message whose time has run out cannot be known of, nor stopped.
    """

    def __init__(
        self,
        grid: Grid,
        train_timeout: Callable[[], float],
        *,
        enough: Callable[[], bool],
        on_reply: Callable[[Message, float], bool],
        on_late: Callable[[Message, float], bool],
        on_send: Callable[[Message, float], bool],
        only_work: bool = False,
    ) -> None:
        self._grid = grid
        self._train_timeout = train_timeout
        self._enough = enough
        self._on_reply = on_reply
        self._on_late = on_late
        self._on_send = on_send
        self.one_at_a_time = getattr(grid, "clock", None) is None
        # By node: the message that it works on, and the instant at which that runs out.
        self._at_work: dict[int, tuple[str, float]] = {}
        self._only_work = only_work
        self.kept_back: list[Message] = []
        self.at_once: int | None = None
        self.clock = clock_of(grid)
        self.collected: Collected | None = None
        self.earlier: set[str] = set()
        self.late: list[tuple[Message, float]] = []

    def takes_over(self, earlier: DeadlineGrid | None) -> None:
        """Know which nodes are at work from an earlier run, if it was on the same grid."""
        if earlier is not None and earlier._grid is self._grid:
            self._at_work = dict(earlier._at_work)

    def listen_for(self, message_ids: Iterable[str]) -> None:
        """From now on keep replies to these messages of past rounds, and forget what was heard before."""
        self.earlier, self.late = set(message_ids), []

    def forget(self) -> None:
        """Forget what came in the last training round."""
        self.collected, self.kept_back = None, []

    def seconds(self) -> dict[str, float]:
        """Return after how many seconds each message of the last training round was answered, by message id."""
        if self.collected is None:
            return {}
        ids = [reply.metadata.reply_to_message_id for reply in self.collected.replies]
        return dict(zip(ids, self.collected.seconds, strict=True))

    def set_run(self, run: Run) -> None:
        """Set the run of the wrapped grid."""
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        """The run of the wrapped grid."""
        return self._grid.run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Create a message through the wrapped grid."""
        return self._grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        """Return the wrapped grid's node ids."""
        return self._grid.get_node_ids()

    def get_nodes(self) -> Iterable[NodeInfo]:
        """Return the wrapped grid's nodes."""
        return self._grid.get_nodes()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages through the wrapped grid."""
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return replies from the wrapped grid."""
        return self._grid.pull_messages(message_ids)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Send messages and return the replies that come before the deadline.

        Training messages get the strategy's deadline; all others get `timeout`.
        """
        batch = list(messages)
        if any(message.metadata.message_type.split(".")[0] == "train" for message in batch):
            self.collected = self._collect(batch, self._train_timeout(), training=True)
            if not self._only_work:
                return self.collected.replies
            self.kept_back = [reply for reply in self.collected.replies if not has_work(reply)]
            with_work = [reply for reply in self.collected.replies if has_work(reply)]
            # An error makes Flower's strategies for differential privacy pass over the round. Without any reply those
            # with adaptive clipping would divide by their number.
            nothing = Error(code=ErrorCode.REPLY_MESSAGE_UNAVAILABLE, reason="nothing came by the deadline")
            return with_work or [Message(nothing, reply_to=batch[0])]
        return self.collect(batch, float("inf") if timeout is None else timeout).replies

    def collect(self, batch: list[Message], timeout: float, *, arrays: bool = True) -> Collected:
        """Send messages that are no part of a training round and return what comes, without its arrays on request."""
        return self._collect(batch, timeout, training=False, arrays=arrays)

    def _collect(self, batch: list[Message], timeout: float, *, training: bool, arrays: bool = True) -> Collected:
        def take(reply: Message, seconds: float) -> None:
            if self._on_reply(reply, seconds):
                drop_arrays(reply)

        def take_late(reply: Message, instant: float) -> None:
            if self._on_late(reply, instant):
                drop_arrays(reply)

        free, held = self._by_readiness(batch)
        collected = collect_replies(
            self._grid,
            free,
            timeout=timeout,
            clock=self.clock,
            enough=(lambda replies: self._enough()) if training else (lambda replies: False),
            earlier=self.earlier,
            held=held,
            on_send=self._on_send if training else (lambda message, seconds: True),
            on_reply=take if training else (lambda reply, seconds: None if arrays else drop_arrays(reply)),
            on_late=take_late,
            at_once=self.at_once,
        )
        self.earlier -= {reply.metadata.reply_to_message_id for reply, _ in collected.late}
        self.late += collected.late
        self._note_who_works(batch, collected, timeout)
        return collected

    def _by_readiness(self, batch: list[Message]) -> tuple[list[Message], dict[str, Message]]:
        """Return the messages to nodes that are free, and the others by the message that their nodes work on."""
        if not self.one_at_a_time:
            return batch, {}
        now = self.clock.now()
        self._at_work = {node: work for node, work in self._at_work.items() if work[1] > now}
        free = [message for message in batch if message.metadata.dst_node_id not in self._at_work]
        others = [message for message in batch if message.metadata.dst_node_id in self._at_work]
        return free, {self._at_work[message.metadata.dst_node_id][0]: message for message in others}

    def _note_who_works(self, batch: list[Message], collected: Collected, timeout: float) -> None:
        answered = {reply.metadata.reply_to_message_id for reply, _ in collected.late}
        self._at_work = {node: work for node, work in self._at_work.items() if work[0] not in answered}
        for message in batch:
            key, node = message.metadata.message_id, message.metadata.dst_node_id
            if key in collected.sent:
                self._at_work.pop(node, None)
            if key in collected.pending:
                # Flower's messages for evaluation live for half a day, and one may be lost.
                self._at_work[node] = key, collected.sent[key] + min(message.metadata.ttl, 2.0 * timeout)


def replies_at_once(arrays: ArrayRecord) -> int:
    """Return for how many messages replies are asked for at a time, so that few large models are in memory at once.

    Notes
    -----
    A look over HTTP costs some ten milliseconds however much it asks for, so small models are all asked for together.

    Examples
    --------
    >>> import numpy as np
    >>> replies_at_once(ArrayRecord([np.zeros(2**20, dtype=np.float32)]))
    15
    """
    size = sum(len(array.data) for array in arrays.values())
    return max(1, _BYTES_AT_ONCE // max(size, 1))


def has_work(reply: Message) -> bool:
    """Return whether a reply is no error, and not that of a client which had no shard done by the deadline."""
    if reply.has_error():
        return False
    said = reply.content.config_records.get(RECORD)
    return said is None or said.get(SHARD_IDS) != []


def drop_arrays(reply: Message) -> None:
    """Remove the arrays of a reply that has been worked off: they are what it takes room for."""
    if reply.has_content():
        for name, record in list(reply.content.array_records.items()):
            # Flower's records refer to themselves, so that one which is only let go of stays until Python looks for
            # such things, and by then there may be many.
            record.clear()
            del reply.content[name]
