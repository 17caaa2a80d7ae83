"""Flower's Grid in one process and in virtual time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from typing import cast

import numpy as np
from flwr.app import Context, Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from fedgc.assignment import own_part
from fedgc.checkpoint import Tree
from fedgc.deadline import collect_replies
from fedgc.fleets import Fleet
from fedgc.global_random import kept_globals, seed_globals
from fedgc.protocol import RECORD, SHARD_IDS
from fedgc.records.copies import config_of
from fedgc.simulation.clock import VirtualClock
from fedgc.simulation.grid_state import Due, Event, GridState, state_from_tree, state_to_tree
from fedgc.simulation.handed_out import HandedOut
from fedgc.simulation.messages import Job, as_received, copy_of, reply_of, round_of
from fedgc.simulation.work import answer_time

RunClient = Callable[[Message, Context], Message]

#: Node id of client 0. Flower's SuperLink itself is node 1.
FIRST_NODE_ID = 100


class VirtualGrid(Grid):
    """A grid that calls the ClientApp itself and takes completion times from a fleet.

    Parameters
    ----------
    fleet : Fleet
        Who answers, and after how many seconds.
    client_app : callable
        A Flower ClientApp.
    contexts : mapping of int to Context
        The context of every node, by node id ``FIRST_NODE_ID + client``.
    num_shards : int, optional
        Number of shards that clients divide among themselves when a train message assigns none; by default each
        client has one.
    backlog : bool
        What a node does with a message that comes while it still works on another. True: it finishes the first, as a
        deployed SuperNode does, so that a slow node is late in the following rounds too. False: the new message
        replaces the old, which is answered with an error, so that every round starts afresh and is met by the same
        draws whatever the strategy.

    Notes
    -----
    A ClientApp runs when the clock reaches its completion time, so work that is unfinished when the run ends, or that a
    newer message has replaced, is never done. Replies are handed out in order of arrival, ties by client, and forgotten
    when the time to live of their message ends. A message that gets no reply is answered with Flower's own errors:
    node unavailable after the fleet's `loss_detection`, reply unavailable when its time to live ends.
    """

    def __init__(
        self,
        fleet: Fleet,
        client_app: RunClient,
        contexts: Mapping[int, Context],
        *,
        run_id: int,
        num_shards: int | None = None,
        backlog: bool = False,
    ) -> None:
        self.clock = VirtualClock()
        self._fleet = fleet
        self._client_app = client_app
        self._contexts = contexts
        self._run = Run.create_empty(run_id)
        self._num_shards = fleet.n_clients if num_shards is None else num_shards
        self._backlog = backlog
        self._globals_are_kept = False
        self.state = GridState(online=dict.fromkeys(sorted(contexts)))
        self.handed_out: list[HandedOut] = []

    @property
    def trace(self) -> list[Event]:
        """What has happened so far, in order."""
        return self.state.trace

    def to_tree(self) -> Tree:
        """Return everything that the rest of the run depends on as plain data, between two calls of the grid."""
        return state_to_tree(self.state, self.clock.now(), self._contexts)

    def restore(self, tree: Tree) -> None:
        """Go on where the grid was that wrote this, with the same fleet and apps; nothing must have happened yet.

        Raises
        ------
        CheckpointError
            If it is of other clients, or not what :meth:`to_tree` wrote.
        """
        self.state, now, due = state_from_tree(tree, self._contexts)
        self.clock.go_to(now)
        for one in due:
            self._schedule(one)

    def set_run(self, run: Run) -> None:
        """Set the run."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run."""
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Create a message (deprecated in Flower, kept for its older apps)."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Return the ids of the nodes that are not known to have gone."""
        return list(self.state.online)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages; each node starts at the current instant, or when it is free."""
        self.state.looked_for.clear()
        return [self._push(message) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies to these messages that have arrived by now.

        A second pull for the same messages at the same instant that would find nothing either waits for the next event,
        so that loops without a sleep end.
        """
        wanted = message_ids if isinstance(message_ids, AbstractSet) else set(message_ids)
        found = [key for key in self.state.replies if key in wanted]
        if self.state.looked_at != self.clock.now():
            self.state.looked_at, self.state.looked_for = self.clock.now(), set()
        if not found and wanted and wanted <= self.state.looked_for:
            # Asking again at the same instant is a loop that waits without sleeping: let it wait for the next event.
            self.clock.wait(float("inf"))
            found = [key for key in self.state.replies if key in wanted]
        if not found:  # what finds something goes on with it: to note that too would take a whole round's ids each time
            self.state.looked_for |= wanted
        return [self.state.replies.pop(key) for key in found]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Send messages and wait for the replies, for at most `timeout` virtual seconds."""
        limit = float("inf") if timeout is None else timeout
        with self._keeping_globals():
            return collect_replies(self, messages, timeout=limit, clock=self.clock).replies

    @contextmanager
    def _keeping_globals(self) -> Iterator[None]:
        """Keep the server's global generators while clients use them: once, for as long as no server code runs."""
        if self._globals_are_kept:
            yield
            return
        self._globals_are_kept = True
        try:
            with kept_globals():
                yield
        finally:
            self._globals_are_kept = False

    def _push(self, message: Message) -> str:
        client = message.metadata.dst_node_id - FIRST_NODE_ID
        if message.metadata.dst_node_id not in self._contexts:
            return ""
        self.state.n_messages += 1
        message_id = f"{self.state.n_messages:08d}"
        message.metadata.__dict__["_message_id"] = message_id
        server_round = round_of(message)
        stream = self.state.streams.get((client, server_round), 0)
        self.state.streams[client, server_round] = stream + 1
        # What the server changes after sending must not reach the client: Flower's FedAvg writes the round number into
        # one ConfigRecord that all its messages share.
        now = self.clock.now()
        expires = now + message.metadata.ttl
        job = Job(copy_of(message), client, server_round, stream, expires)
        self._record("sent", job)
        if not self._backlog:
            if (old := self.state.in_progress.get(client)) is not None:
                self._fail(old, "replaced", ErrorCode.MESSAGE_UNAVAILABLE, "replaced by a newer message")
            self.state.in_progress[client] = job

        begins = max(now, self.state.free_at.get(client, 0.0))  # later than now only with a backlog
        load = self._load(message)
        draw = self._fleet.draw(client, server_round, stream=stream, now=begins, training=load > 0)
        self.handed_out.append(HandedOut(client, server_round, stream, begins, load > 0, draw))
        seconds = answer_time(job.message, draw, load)
        if not np.isfinite(seconds):
            self._schedule(Due(now + self._fleet.loss_detection, "lose", job))
        else:
            if self._backlog:
                start = max(now, self.state.free_at.get(client, 0.0))
                if start < expires:
                    self.state.free_at[client] = start + seconds
            else:
                start = now
            if start + seconds <= expires:
                self._schedule(Due(start + seconds, "complete", job))
        self._schedule(Due(expires, "expire", job))
        return message_id

    def _schedule(self, due: Due) -> None:
        """Let something happen at its instant. What is due is kept as data, so that a run can be saved and resumed."""
        number, self.state.n_due = self.state.n_due, self.state.n_due + 1
        self.state.due[number] = due

        def happen() -> None:
            del self.state.due[number]
            if due.reply is not None:
                self._answer(due.job, due.kind, due.reply)
            else:
                {"lose": self._lose, "complete": self._complete, "expire": self._expire}[due.kind](due.job)

        self.clock.schedule(due.instant, happen, priority=due.job.client)

    def _load(self, message: Message) -> float:
        if message.metadata.message_type.split(".")[0] != "train":
            return 0.0
        assignment = config_of(message.content, RECORD)
        if assignment is not None and SHARD_IDS in assignment:
            return float(len(cast(list[int], assignment[SHARD_IDS])))
        client = message.metadata.dst_node_id - FIRST_NODE_ID
        return float(len(own_part(client, self._fleet.n_clients, self._num_shards)))

    def _complete(self, job: Job) -> None:
        key = job.message.metadata.message_id
        if key in self.state.answered:  # replaced by a newer message
            return
        context = self._contexts[job.message.metadata.dst_node_id]
        instruction = as_received(job)
        delay = 0.0
        try:
            with self._keeping_globals():
                seed_globals(self._fleet.seed, job.client, job.server_round, job.stream)
                reply, delay = self.clock.call_client(lambda: self._client_app(instruction, context))
            if not isinstance(reply, Message) or reply.metadata.reply_to_message_id != key:
                raise TypeError(f"a ClientApp must return a Message in reply to the one it got; got {reply!r:.80}")
        except (Exception, SystemExit) as error:  # a client may fail in any way: the round goes on without it
            reason = f"{type(error).__name__}: {error}"
            self._fail(job, "failed", ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason)
            return
        reply, kind = reply_of(reply), "failed" if reply.has_error() else "replied"
        if delay > 0.0:
            # The client has slept: the fleet's time is what its work takes, and sleeping comes on top.
            self._schedule(Due(self.clock.now() + delay, kind, job, reply))
        else:
            self._answer(job, kind, reply)

    def _lose(self, job: Job) -> None:
        if self._fleet.has_left(job.client, job.server_round):
            self.state.online.pop(job.message.metadata.dst_node_id, None)
        if self.clock.now() < job.expires:  # what has run out by then has been answered, if not handed out
            self._fail(job, "unavailable", ErrorCode.NODE_UNAVAILABLE, "node unavailable")

    def _expire(self, job: Job) -> None:
        key = job.message.metadata.message_id
        if key in self.state.answered:
            self.state.replies.pop(key, None)
            self.state.answered.discard(key)
        else:
            self._fail(job, "expired", ErrorCode.REPLY_MESSAGE_UNAVAILABLE, "time to live ended")

    def _fail(self, job: Job, kind: str, code: int, reason: str) -> None:
        if job.message.metadata.message_id not in self.state.answered:
            self._answer(job, kind, Message(Error(code=code, reason=reason), reply_to=as_received(job)))

    def _answer(self, job: Job, kind: str, reply: Message) -> None:
        key = job.message.metadata.message_id
        if key in self.state.answered:  # expired while the client slept
            return
        self.state.answered.add(key)
        if self.state.in_progress.get(job.client) is job:
            del self.state.in_progress[job.client]
        self._record(kind, job, str(reply.error.reason) if kind == "failed" else "")
        self.state.replies[key] = reply

    def _record(self, kind: str, job: Job, detail: str = "") -> None:
        message_type = job.message.metadata.message_type
        self.state.trace.append(Event(self.clock.now(), kind, job.client, job.server_round, message_type, detail))
