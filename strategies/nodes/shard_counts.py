"""Nodes whose train function is about another number of shards than the server's."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable

from flwr.app import ConfigRecord, Message

from fedgc.protocol import NUM_SHARDS, RECORD

logger = logging.getLogger("flwr.fedgc")


class ShardCounts:
    """Holds the number of shards that replies tell against the server's, and warns once of each node that differs.

    Their replies count all the same: the number is for servers that assign no shards, and may stand for nothing there.
    But a client that divides its data into 40 has the wrong eight of them where a server has shards 0 to 7.

    Parameters
    ----------
    num_shards : int
        The server's.

    Examples
    --------
    >>> ShardCounts(8).hear(1, [])
    """

    def __init__(self, num_shards: int) -> None:
        self._num_shards = num_shards
        self._warned: set[int] = set()

    def hear(self, server_round: int, replies: Iterable[Message]) -> None:
        """Take note of replies; nodes that tell the same number share a line in the log."""
        others: dict[int, set[int]] = defaultdict(set)
        for reply in replies:
            said = None if reply.has_error() else reply.content.get(RECORD)
            theirs = said.get(NUM_SHARDS) if isinstance(said, ConfigRecord) else None
            if type(theirs) is int and 0 < theirs < 2**63 and theirs != self._num_shards:
                others[theirs].add(reply.metadata.src_node_id)
        for theirs, nodes in sorted(others.items()):
            new = sorted(nodes - self._warned)
            self._warned |= nodes
            if new:
                named = ", ".join(map(str, new[:5])) + (f" and {len(new) - 5} more" if len(new) > 5 else "")
                logger.warning(
                    "round %d: num_shards is %d in gradient_coded (or the run config) of nodes %s, and %d in "
                    "GradientCoding: do both divide the data alike?",
                    server_round, theirs, named, self._num_shards,
                )  # fmt: skip

    def to_data(self) -> list[int]:
        """Return the nodes that have been warned of."""
        return sorted(self._warned)

    def from_data(self, data: Iterable[int]) -> ShardCounts:
        """Return another one for the same number that has warned of these nodes."""
        other = ShardCounts(self._num_shards)
        other._warned = set(data)
        return other
