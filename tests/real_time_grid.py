"""A Flower grid in real time: every message is worked on by a thread of its own, as the Simulation Runtime would."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable

from flwr.app import Context, Error, Message
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.run import Run

ClientCall = Callable[[Message, Context], Message]


class RealTimeGrid(Grid):
    """Nodes that run a ClientApp in threads; `delay(partition)` seconds are lost on the way there and back."""

    def __init__(self, client_app: ClientCall, contexts: dict[int, Context], delay: Callable[[int], float]) -> None:
        self._client_app, self._contexts, self._delay = client_app, contexts, delay
        self._run = Run.create_empty(1)
        self._lock = threading.Lock()
        self._replies: dict[str, Message] = {}
        self._threads: list[threading.Thread] = []
        self._count = 0
        #: Messages that each node works on now, and most that any ever did.
        self.working: Counter[int] = Counter()
        self.most_at_once = 0

    def set_run(self, run: Run) -> None:
        self._run = run

    @property
    def run(self) -> Run:
        return self._run

    def create_message(self, *args: object, **options: object) -> Message:
        raise NotImplementedError

    def get_node_ids(self) -> Iterable[int]:
        return list(self._contexts)

    def get_nodes(self) -> Iterable[NodeInfo]:
        return [NodeInfo(node_id=node) for node in self._contexts]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = []
        for message in messages:
            self._count += 1
            message.metadata.__dict__["_message_id"] = f"m{self._count}"
            ids.append(message.metadata.message_id)
            thread = threading.Thread(target=self._work, args=(message,), daemon=True)
            self._threads.append(thread)
            thread.start()
        return ids

    def _work(self, message: Message) -> None:
        node = message.metadata.dst_node_id
        context = self._contexts[node]
        with self._lock:
            self.working[node] += 1
            self.most_at_once = max(self.most_at_once, self.working[node])
        delay = self._delay(int(str(context.node_config["partition-id"]))) / 2.0
        time.sleep(delay)
        try:
            reply = self._client_app(message, context)
        except Exception as error:
            reply = Message(Error(code=2, reason=str(error)), reply_to=message)
        time.sleep(delay)
        with self._lock:
            self.working[node] -= 1
            self._replies[message.metadata.message_id] = reply

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        with self._lock:
            return [self._replies.pop(key) for key in list(message_ids) if key in self._replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        raise NotImplementedError

    def join(self) -> None:
        """Wait for all threads."""
        for thread in self._threads:
            thread.join()
