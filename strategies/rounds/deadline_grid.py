"""A grid whose send_and_receive keeps the round's deadline, whatever Flower runtime is behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from fedgc.strategies.messages.arrays import replies_at_once
from fedgc.strategies.messages.bounded_pull import bounded
from fedgc.strategies.messages.pull_limits import PullLimits
from fedgc.strategies.messages.reply_limits import drop_arrays
from fedgc.strategies.nodes.busy_nodes import BusyNodes
from flwr.app import ArrayRecord, Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from fedgc.checkpoint import Tree
from fedgc.clock import Clock, WallClock
from fedgc.deadline import Collected, collect_replies
from fedgc.protocol import RECORD, SHARD_IDS
from fedgc.records.copies import config_of
from fedgc.simulation.grid import VirtualGrid


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
    on_close : callable
        Called when a ``with`` block of this grid ends, with whether it did without an error.
    only_work : bool
        Whether only those replies to training messages are returned that have work in them, and the others kept back.
        If there is none, an error is returned.
    usable : callable
        Asked with each of these whether it can be used; those that cannot are kept back too.

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
        Whether messages are held back from nodes that are at work, see
        :class:`fedgc.strategies.nodes.busy_nodes.BusyNodes`; not in the embedded runtime.
    at_once : int or None
        How many messages replies are asked for at a time; None for all.
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
        on_close: Callable[[bool], None],
        only_work: bool = False,
        usable: Callable[[Message], bool] = lambda reply: True,
    ) -> None:
        self._grid = grid
        self._pull = bounded(grid)
        self._on_close = on_close
        self._train_timeout = train_timeout
        self._enough = enough
        self._on_reply = on_reply
        self._on_late = on_late
        self._on_send = on_send
        self.one_at_a_time = not self.shared_clock
        self._busy = BusyNodes()
        self._only_work, self._usable = only_work, usable
        self.kept_back: list[Message] = []
        self.at_once: int | None = None
        self.clock = clock_of(grid)
        self.collected: Collected | None = None
        self.earlier: set[str] = set()
        self.late: list[tuple[Message, float]] = []

    @property
    def shared_clock(self) -> bool:
        """Whether clients go by the grid's clock, as in virtual time: a deadline is the same instant for all."""
        return getattr(self._grid, "clock", None) is not None

    def __enter__(self) -> DeadlineGrid:
        """Return the grid, for a run that ends with the block."""
        return self

    def __exit__(self, *exception: object) -> None:
        """End the run."""
        self._on_close(exception[0] is None)

    def takes_over(self, earlier: DeadlineGrid | None) -> None:
        """Know which nodes are at work from an earlier run, if it was on the same grid."""
        if earlier is not None and earlier._grid is self._grid:
            self._busy = earlier._busy.copy()

    def snapshot(self) -> Tree | None:
        """Return all that the grid knows, and the messages in it, as plain data; None but in virtual time."""
        if not isinstance(self._grid, VirtualGrid):
            return None
        return self._grid.to_tree()

    def restore(self, snapshot: Tree | None) -> bool:
        """Go on from a snapshot, and return whether there was one to go on from."""
        if snapshot is None or not isinstance(self._grid, VirtualGrid):
            return False
        self._grid.restore(snapshot)
        return True

    def expect(self, arrays: ArrayRecord, n_sums: int = 1, n_shards: int = 1) -> None:
        """Bound what is in memory of replies, which have at most so many sums as large as a model, over so many shards.

        From a SuperLink they come one by one, and only within the limits of a reply; other grids hand over whole ones,
        and some at a time are asked for.
        """
        if self._pull is not None:
            # Replies to the round before may still come.
            self._pull.limits = PullLimits.of(arrays, n_sums, n_shards).at_least(self._pull.limits)
        elif self.one_at_a_time:
            self.at_once = replies_at_once(arrays)

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
            with_work: list[Message] = []
            self.kept_back = []
            for reply in self.collected.replies:
                (with_work if has_work(reply) and self._usable(reply) else self.kept_back).append(reply)
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

        now = self.clock.now()
        free, held = self._busy.by_readiness(batch, now) if self.one_at_a_time else (batch, {})
        collected = collect_replies(
            self._grid if self._pull is None else self._pull,
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
        self._busy.note(batch, collected, timeout)
        return collected


def timed(
    grid: Grid,
    timeout: float,
    *,
    enough: Callable[[], bool] = lambda: False,
    on_reply: Callable[[Message, float], bool] = lambda reply, seconds: False,
) -> DeadlineGrid:
    """Return a grid for strategies of Flower's that are only to be cut off in time, whatever the runtime."""
    return DeadlineGrid(
        grid,
        lambda: timeout,
        enough=enough,
        on_reply=on_reply,
        on_late=lambda reply, instant: True,
        on_send=lambda message, held: True,
        on_close=lambda complete: None,
    )


def has_work(reply: Message) -> bool:
    """Return whether a reply is no error, and not that of a client which had no shard done by the deadline."""
    if reply.has_error():
        return False
    said = config_of(reply.content, RECORD)
    return said is None or said.get(SHARD_IDS) != []
