"""A SuperLink in this process: Flower's own state, object store and handlers, without HTTP between them.

What a node sends is stored as the SuperLink stores it, and the ServerApp's grid is Flower's own ``HttpGrid``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.app.user_config import UserConfig
from flwr.clientapp import ClientApp
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import PullMessagesRequest, PushMessagesRequest
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, PullObjectRequest, PushObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.server.superlink.linkstate import LinkStateFactory
from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME, NOOP_FEDERATION_ID
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree, iterate_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.federation import NoOpFederationManager
from flwr.superlink.grid.http_grid import HttpGrid
from flwr.superlink.servicer.fleet import fleet_handlers
from flwr.superlink.servicer.runtime import runtime_handlers

from fedgc.simulation.run import _task_identity


class SuperLinkAtHand:
    """A run, its nodes, and the ServerApp's way to them."""

    def __init__(self, app: ClientApp, n_nodes: int, run_config: UserConfig | None = None) -> None:
        factory = LinkStateFactory(FLWR_IN_MEMORY_DB_NAME, NoOpFederationManager(), ObjectStoreFactory())
        self.state, self.app = factory.state(), app
        self.run_id = self.state.create_run("a/b", "1.0.0", "", {}, NOOP_FEDERATION_ID, None, None, "flwr-serverapp")
        self.task = self.state.get_tasks(run_ids=[self.run_id])[0]
        assert self.state.claim_task(self.task.task_id) and self.state.activate_task(self.task.task_id)
        self.contexts: dict[int, Context] = {}
        for partition in range(n_nodes):
            node = self.state.create_node("me", "me", f"key {partition}".encode(), 30.0)
            self.state.acknowledge_node_heartbeat(node, 1e6)
            config: Any = {"partition-id": partition, "num-partitions": n_nodes}
            self.contexts[node] = Context(self.run_id, node, config, RecordDict(), run_config or {})
        #: How many objects of a node's replies are there when the SuperLink names the reply, all for None.
        self.at_once: Callable[[int], int | None] = lambda node: None
        #: After how many further requests for an object the rest comes.
        self.looks_until_sent = 0
        #: What a node puts into its reply in place of the reply itself.
        self.content: Callable[[int, Message], Message] = lambda node, reply: reply
        self.pulled_bytes = 0
        self._later: list[tuple[str, dict[str, bytes]]] = []
        self._looks = 0

    @property
    def nodes(self) -> list[int]:
        """The node ids, by partition."""
        return list(self.contexts)

    @contextmanager
    def grid(self) -> Iterator[HttpGrid]:
        """Yield Flower's own grid, whose requests are answered here."""
        with _task_identity():
            TaskIdentity.run_id = self.run_id
            grid = HttpGrid(token="none is needed")
            grid._client = _Client(self)  # type: ignore[assignment]
            grid.set_run(self.state.get_run_info(run_ids=[self.run_id])[0])
            yield grid

    def work(self) -> None:
        """Let every node that has a message work on it and send its reply."""
        for node, context in self.contexts.items():
            assert self.state.acknowledge_task_heartbeat(self.task.task_id)
            while message := self._fetch(node):
                try:
                    reply = self.app(message, context)
                except Exception as error:
                    reply = Message(Error(code=2, reason=f"{type(error).__name__}: {error}"), reply_to=message)
                self.upload(node, reply)

    def upload(self, node: int, reply: Message) -> None:
        """Send a reply as a SuperNode does: its name first, then the objects, those of which others are made last."""
        content = self.content(node, reply)
        reply.metadata.__dict__["_message_id"] = content.object_id
        objects = {key: one.deflate() for key, one in get_all_nested_objects(content).items()}
        request = PushMessagesRequest(
            node=Node(node_id=node),
            messages_list=[message_to_proto(remove_content_from_message(reply))],
            message_object_trees=[get_object_tree(content)],
        )
        response = fleet_handlers.push_messages(request, self.state)
        wanted = {key: objects[key] for key in objects if key in response.objects_to_push}
        count = self.at_once(node)
        now = dict(list(wanted.items())[:count])
        self._send(response.session_id, now)
        if len(now) < len(wanted):
            self._later.append((response.session_id, {key: wanted[key] for key in wanted if key not in now}))

    def look(self) -> None:
        """Note a request for an object, and send what was left when it is due."""
        self._looks += bool(self._later)
        if self._later and self._looks > self.looks_until_sent:
            for session, objects in self._later:
                self._send(session, objects)
            self._later, self._looks = [], 0

    def _send(self, session: str, objects: Mapping[str, bytes]) -> None:
        for key, content in objects.items():
            request = PushObjectRequest(run_id=self.run_id, object_id=key, object_content=content, session_id=session)
            assert fleet_handlers.push_object(request, self.state).stored

    def _fetch(self, node: int) -> Message | None:
        response = fleet_handlers.pull_messages(
            PullMessagesRequest(node=Node(node_id=node)), self.state, self.state.object_store
        )
        for proto, tree in zip(response.messages_list, response.message_object_trees, strict=True):
            keys = [one.object_id for one in iterate_object_tree(tree)]
            contents = {
                key: fleet_handlers.pull_object(
                    PullObjectRequest(node=Node(node_id=node), run_id=self.run_id, object_id=key), self.state
                ).object_content
                for key in keys
            }
            received = ConfirmMessageReceivedRequest(run_id=self.run_id, message_object_id=tree.object_id)
            fleet_handlers.confirm_message_received(received, self.state, self.state.object_store)
            message: Any = inflate_object_from_contents(tree.object_id, contents)
            message.metadata.__dict__["_message_id"] = proto.metadata.message_id
            return message  # type: ignore[no-any-return]
        return None


class _Client:
    """Answers the ServerApp's requests with the SuperLink's handlers."""

    def __init__(self, link: SuperLinkAtHand) -> None:
        self._link = link
        for name, handler in (
            ("GetNodes", runtime_handlers.get_nodes),
            ("PushMessages", runtime_handlers.push_messages),
            ("PushObject", runtime_handlers.push_object),
            ("ConfirmMessageReceived", runtime_handlers.confirm_message_received),
        ):
            setattr(self, name, partial(handler, state=link.state, task=link.task))

    def PullMessages(self, request: Any) -> Any:  # noqa: N802
        self._link.work()
        return runtime_handlers.pull_messages(request, self._link.state, self._link.task)

    def PullObject(self, request: PullObjectRequest) -> Any:  # noqa: N802
        self._link.look()
        response = runtime_handlers.pull_object(request, self._link.state, self._link.task)
        self._link.pulled_bytes += len(response.object_content)
        return response

    def close(self) -> None: ...
