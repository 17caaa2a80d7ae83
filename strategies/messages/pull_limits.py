"""How much of a reply is pulled from a SuperLink and put together, told by the model before anything is."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any, cast

from fedgc.strategies.messages.reply_limits import most_bytes
from flwr.app import ArrayRecord, Message
from flwr.common.constant import FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE
from flwr.supercore.inflatable.inflatable_object import get_object_head_values_from_object_content
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from fedgc.errors import ReplyRejectedError, ReplyTooLargeError
from fedgc.records.array_bytes import LONGEST_HEADER, views

#: How the content of an array begins, in which its parts are named.
_ARRAY = b"Array "
#: Objects and bytes of a reply beside its arrays; bytes for what names an array or a part of it, or a shard.
_MORE_OBJECTS, _MORE_BYTES, _PER_NAME = 64, 2**20, 512


@dataclass(frozen=True)
class PullLimits:
    """What a reply may have, as the SuperLink keeps it: objects that refer to each other by their hashes.

    Attributes
    ----------
    objects : int
        How many objects.
    array_bytes : int
        Bytes of its arrays, as they are sent and as they are put together.
    other_bytes : int
        Bytes of all else: records without arrays, and what names the arrays.
    """

    objects: int
    array_bytes: int
    other_bytes: int

    @classmethod
    def of(cls, arrays: ArrayRecord, n_sums: int = 1, n_shards: int = 1) -> PullLimits:
        """Return the limits of replies with at most so many sums over at most so many shards.

        Examples
        --------
        >>> import numpy as np
        >>> PullLimits.of(ArrayRecord([np.zeros(1000, np.float32)]))
        PullLimits(objects=67, array_bytes=9536, other_bytes=1050113)
        """
        values = views(arrays)
        chunks = sum(
            math.ceil((max(value.itemsize, 8) * value.size + LONGEST_HEADER) / FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE)
            for value in values.values()
        )
        names = len(values) + chunks
        return cls(
            objects=_MORE_OBJECTS + n_sums * (1 + names),
            array_bytes=n_sums * (most_bytes(values) + _PER_NAME * chunks),
            other_bytes=_MORE_BYTES + _PER_NAME * (n_sums * names + n_shards) + n_sums * sum(map(len, values)),
        )

    def at_least(self, other: PullLimits | None) -> PullLimits:
        """Return limits within which all is that is within either's."""
        if other is None:
            return self
        pairs = zip(astuple(self), astuple(other), strict=True)
        return PullLimits(*(max(one, another) for one, another in pairs))

    def check(self, array_bytes: int, other_bytes: int) -> None:
        """Raise ReplyTooLargeError if a reply has more bytes than that."""
        if array_bytes > self.array_bytes:
            raise ReplyTooLargeError(f"the arrays of a reply must have at most {self.array_bytes} bytes; got more")
        if other_bytes > self.other_bytes:
            raise ReplyTooLargeError(f"a reply must have at most {self.other_bytes} bytes beside arrays; got more")


def put_together(object_id: str, contents: dict[str, bytes], limits: PullLimits | None) -> Message:
    """Return the message that is made of these objects; they are used up.

    Raises
    ------
    ReplyTooLargeError
        If its arrays would have more bytes than they may.
    ReplyRejectedError
        If it is none, whatever Flower runs into.
    """
    try:
        size = _size_put_together(contents)
        if limits is not None:
            limits.check(size, 0)
        message = inflate_object_from_contents(object_id, contents)
    except ReplyTooLargeError:
        raise
    # Whatever it is that a node has sent, it is no reason to end the run.
    except Exception as reason:
        raise ReplyRejectedError(f"it cannot be read: {reason}") from None
    if not isinstance(message, Message):
        raise ReplyRejectedError(f"it must be a message; got a {type(message).__name__}")
    return message


def _size_put_together(contents: Mapping[str, bytes]) -> int:
    """Return how many bytes the arrays among these objects have once their parts are put together."""
    size = 0
    for content in contents.values():
        if content.startswith(_ARRAY):
            _, children, _ = get_object_head_values_from_object_content(content)
            parts = cast(dict[str, Any], json.loads(content[content.index(b"\0") + 1 :]))["arraychunk_ids"]
            lengths = [len(contents[key]) for key in children]
            size += sum(lengths[part] for part in parts)
    return size
