"""Pull replies from a SuperLink within limits, one at a time, and without waiting for one that is still being sent."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from fedgc.strategies.messages.pull_limits import PullLimits, put_together
from fedgc.strategies.messages.reply_limits import one_line
from flwr.app import Error, Message
from flwr.app.message import make_message
from flwr.common.constant import ErrorCode
from flwr.common.serde import message_from_proto
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, ObjectTree, PullObjectRequest
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.runtime_pb2 import PullAppMessagesRequest
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree

from fedgc.errors import NothingToReadError, ReplyRejectedError, ReplyTooLargeError

if TYPE_CHECKING:
    from flwr.superlink.grid.http_grid import HttpGrid

#: How the content of a part of an array begins.
_CHUNK = b"ArrayChunk "


@dataclass
class _Coming:
    """A reply of which the SuperLink has the name; `missing` is an object of it that it had not when last asked."""

    reply: ProtoMessage
    tree: ObjectTree
    missing: str


class BoundedPull:
    """Pulls replies as ``HttpGrid.pull_messages`` does, each on its own and within limits.

    Parameters
    ----------
    grid : HttpGrid
        Flower's grid of a deployed ServerApp.

    Attributes
    ----------
    limits : PullLimits or None
        What a reply may have; None for any, before a model is known.

    Notes
    -----
    Flower's own method takes whatever a node has sent. An array is sent as a list of parts, and one part may be named
    any number of times: a reply of 5 MiB is put together to as many gigabytes as its sender likes. What cannot be
    put together raises an error, which ends the run. And a reply is named to the server before it has been uploaded,
    and then waited for, for up to 180 s after each object of it (Flower 1.41), whatever the round's deadline: a slow
    network is enough for that, or a node that is killed while it sends. Here a reply that is not all there is looked at
    again with the next pull, what is beyond the limits or cannot be read is an error reply, and the metadata are those
    that the SuperLink has checked and not those that came along with the content.

    What is asked for comes one reply at a time, so that no more than one is in memory however many have come. A single
    object is in memory before its size is known: bodies of requests, which Flower does not limit (2 GiB are the most
    that protobuf can hold), are for a proxy before the SuperLink to bound. Flower cuts arrays into parts of 5 MiB.
    """

    def __init__(self, grid: HttpGrid) -> None:
        self.limits: PullLimits | None = None
        self._grid = grid
        self._coming: dict[str, _Coming] = {}

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages as the grid does."""
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterator[Message]:
        """Yield the replies to these messages that are all there; those to others are not waited for any longer."""
        asked = set(message_ids)
        for key in self._coming.keys() - asked:
            self._forget(self._coming.pop(key))
        if new := asked - self._coming.keys():
            came = self._grid._runtime_client.PullMessages(PullAppMessagesRequest(message_ids=new))
            for reply, tree in zip(came.messages_list, came.message_object_trees, strict=True):
                self._coming[reply.metadata.reply_to_message_id] = _Coming(reply, tree, tree.object_id)
        for key, coming in list(self._coming.items()):
            message = self._message(coming)
            if message is not None:
                del self._coming[key]
                self._forget(coming)
                yield message

    def _message(self, coming: _Coming) -> Message | None:
        """Return a reply, or an error in its place, None if not all of it is there."""
        metadata = message_from_proto(coming.reply).metadata
        try:
            contents = self._contents(coming)
            if contents is None:
                return None
            message = put_together(coming.tree.object_id, contents, self.limits)
        except ReplyRejectedError as reason:
            lost = isinstance(reason, NothingToReadError)
            code = ErrorCode.REPLY_MESSAGE_UNAVAILABLE if lost else ErrorCode.UNKNOWN
            return make_message(metadata, error=Error(code, one_line(reason)))
        if message.has_error():
            return make_message(metadata, error=message.error)
        return make_message(metadata, content=message.content)

    def _contents(self, coming: _Coming) -> dict[str, bytes] | None:
        """Return the content of every object of a reply, None if one of them is not there yet."""
        limits = self.limits
        most = None if limits is None else limits.objects + 1
        ids = [tree.object_id for tree in islice(iterate_object_tree(coming.tree), most)]
        if limits is not None and len(ids) > limits.objects:
            raise ReplyTooLargeError(f"a reply must have at most {limits.objects} objects; got more")
        contents: dict[str, bytes] = {}
        array_bytes = other_bytes = 0
        # Flower sends the message itself last. So it is asked for first, and then whatever was missing the last time.
        for key in dict.fromkeys([coming.missing, *reversed(ids)]):
            pulled = self._grid._runtime_client.PullObject(
                PullObjectRequest(node=self._grid.node, run_id=self._grid.run.run_id, object_id=key)
            )
            if not pulled.object_found:
                raise NothingToReadError("its reply was not sent in full")
            if not pulled.object_available:
                coming.missing = key
                return None
            contents[key] = pulled.object_content
            if pulled.object_content.startswith(_CHUNK):
                array_bytes += len(pulled.object_content)
            else:
                other_bytes += len(pulled.object_content)
            if limits is not None:
                limits.check(array_bytes, other_bytes)
        return contents

    def _forget(self, coming: _Coming) -> None:
        """Let the SuperLink remove what it keeps of a reply."""
        self._grid._runtime_client.ConfirmMessageReceived(
            ConfirmMessageReceivedRequest(
                node=self._grid.node, run_id=self._grid.run.run_id, message_object_id=coming.tree.object_id
            )
        )


def bounded(grid: Grid) -> BoundedPull | None:
    """Return what pulls replies for a grid in its stead, None for a grid that has none to pull from a SuperLink."""
    # Not imported for it: that takes a second or two, and what has not been imported has no instances.
    module = sys.modules.get("flwr.superlink.grid.http_grid")
    if module is None or not isinstance(grid, module.HttpGrid):
        return None
    return BoundedPull(grid)
