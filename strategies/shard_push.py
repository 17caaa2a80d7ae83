"""Shards that the server has: each client is sent what it lacks of its part, once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any, cast

from fedgc.strategies.nodes.kept_shards import KeptShards, Sent
from flwr.app import ConfigRecord, Message
from flwr.common.constant import ErrorCode
from numpy.typing import NDArray

from fedgc.checkpoint import Tree
from fedgc.protocol import (
    ASKED_DIGESTS,
    ASKED_SHARDS,
    PUSHED,
    PUSHED_DATA,
    RECORD,
    SHARD_DIGESTS,
    SHARD_IDS,
)
from fedgc.records.copies import config_of
from fedgc.shard_format import pack_shard, shard_digest
from fedgc.validation import check_integer

logger = logging.getLogger("flwr.fedgc")

#: Bytes of a part: Flower cuts arrays into as many.
_PART = 5 * 2**20
#: Shards that a client is asked about beside those of its part; others are taken to have been forgotten.
_MOST_ASKED = 1024
#: What a node has not received for certain: the message was not delivered.
_UNDELIVERED = (ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.NODE_UNAVAILABLE)


@dataclass(frozen=True)
class Pushes:
    """What was pushed with the messages of one round.

    Attributes
    ----------
    n_nodes : int
        Nodes that were sent shards.
    n_shards : int
        Shards that were sent, counted once for every node.
    n_bytes : int
        Their bytes, packed.
    """

    n_nodes: int
    n_shards: int
    n_bytes: int


class PushedShards:
    """The shards' data on the server, for :class:`GradientCoding`, and which node keeps what.

    Parameters
    ----------
    shards : mapping of int to mapping of str to ndarray, or callable
        Arrays by shard id, or a function that makes the arrays of a shard id. It must return the same whenever it is
        called, which is once for every round in which the shard is pushed.
    message_bytes : int
        Most bytes of shards in one message, of more than one shard; what does not fit goes with the next ones.
    ask_first : bool
        Whether a node's first message only names its shards, so that nodes which have kept them from an earlier run are
        not sent them again. It costs all others their first round.

    Attributes
    ----------
    history : list of Pushes
        What was pushed, by round.

    Raises
    ------
    ValueError
        If an option is out of range.

    Notes
    -----
    A message names the client's shards by their SHA-256 and carries the data of those that the client is not known to
    keep. The reply tells which of the named ones it lacks, and these go with the next message. A node that has been
    sent a shard is taken to keep it until it says otherwise, or until Flower says that the message was not delivered:
    to send everything again to each straggler would cost more than the round that a lost message costs. All copies of a
    shard are the same record, which Flower uploads once, and cuts into parts. A run that is resumed knows what nodes
    keep; those of a SuperLink that has forgotten its nodes have other ids then, and are new ones.

    Examples
    --------
    >>> import numpy as np
    >>> shards = PushedShards({i: {"x": np.full(100, i)} for i in range(40)})
    >>> shards.check(40)
    >>> shards.n_bytes_sent
    0
    """

    def __init__(
        self,
        shards: Mapping[int, Mapping[str, NDArray[Any]]] | Callable[[int], Mapping[str, NDArray[Any]]],
        *,
        message_bytes: int = 2**28,
        ask_first: bool = False,
    ) -> None:
        if not isinstance(shards, Mapping) and not callable(shards):
            raise ValueError(f"shards must map shard ids to arrays, or be a function; got {shards!r:.80}")
        self._shards = shards
        self._message_bytes = check_integer("message_bytes", message_bytes, low=1)
        self._ask_first = bool(ask_first)
        self._digests: dict[int, str] = {}
        self._nodes: dict[int, KeptShards] = {}
        self.history: list[Pushes] = []

    def __repr__(self) -> str:
        """Return what was pushed so far."""
        return f"PushedShards(n_bytes_sent={self.n_bytes_sent})"

    @property
    def n_bytes_sent(self) -> int:
        """Bytes of shards in all messages so far."""
        return sum(pushes.n_bytes for pushes in self.history)

    def check(self, num_shards: int) -> None:
        """Raise ValueError if a shard is missing."""
        if isinstance(self._shards, Mapping):
            missing = [shard_id for shard_id in range(num_shards) if shard_id not in self._shards]
            if missing:
                raise ValueError(f"shards must hold all of 0 to {num_shards - 1}; got none for {missing[:5]}")

    def attach(self, messages: Iterable[Message]) -> None:
        """Add to a round's messages the names of their shards, and the data of those that their nodes lack.

        Parameters
        ----------
        messages : iterable of Message
            Messages with an assignment, whose records are their own.
        """
        packed: dict[int, bytes] = {}  # of this round, so that a shard's copies are one piece of memory
        n_nodes = n_shards = n_bytes = 0
        for message in messages:
            node = self._nodes.setdefault(message.metadata.dst_node_id, KeptShards())
            assignment = message.content.config_records[RECORD]
            shard_ids = cast(list[int], assignment[SHARD_IDS])
            sizes: dict[int, int] = {}
            lacking = [shard_id for shard_id in shard_ids if shard_id not in node.kept]
            for shard_id in lacking if node.takes_pushes and (node.answered or not self._ask_first) else ():
                if shard_id not in packed:
                    packed[shard_id] = self._pack(shard_id)
                data = packed[shard_id]
                if sizes and sum(sizes.values()) + len(data) > self._message_bytes:
                    break
                sizes[shard_id] = len(data)
                for part, start in enumerate(range(0, len(data), _PART)):
                    record = ConfigRecord({PUSHED_DATA: data[start : start + _PART]})
                    message.content[PUSHED.format(shard_id, part)] = record
            assigned = set(shard_ids)
            asked = [shard_id for shard_id in node.kept if shard_id not in assigned][-_MOST_ASKED:]
            if node.takes_pushes:
                assignment[SHARD_DIGESTS] = self._named(shard_ids)
                if asked:
                    assignment[ASKED_SHARDS], assignment[ASKED_DIGESTS] = list(asked), self._named(asked)
            node.sent(Sent(message.metadata, [*asked, *shard_ids], list(sizes)))
            n_nodes, n_shards, n_bytes = n_nodes + bool(sizes), n_shards + len(sizes), n_bytes + sum(sizes.values())
        self.history.append(Pushes(n_nodes, n_shards, n_bytes))
        if n_shards:
            logger.info("%d shards, %.3g MB, go to %d nodes", n_shards, n_bytes / 1e6, n_nodes)

    def hear(self, replies: Iterable[Message]) -> None:
        """Learn from replies, to this round's messages or to earlier ones, what their nodes keep."""
        pending = {sent.metadata.message_id: (node, sent) for node in self._nodes.values() for sent in node.pending}
        for reply in replies:
            node, sent = pending.pop(reply.metadata.reply_to_message_id, (None, None))
            if node is None or sent is None or sent not in node.pending:
                continue
            if reply.has_error():
                lacking = sent.pushed if reply.error.code in _UNDELIVERED else []
            else:
                lacking = node.heard(sent, config_of(reply.content, RECORD) or ConfigRecord())
                if set(lacking) & set(sent.pushed):
                    logger.warning(
                        "node %d does not keep all that it is sent: is its store too small?", sent.metadata.dst_node_id
                    )
            # What has been sent since that message is not known to lack, and what is older is out of date.
            node.pending = node.pending[node.pending.index(sent) + 1 :]
            again = {shard_id for later in node.pending for shard_id in later.pushed}
            for shard_id in set(lacking) - again:
                node.kept.pop(shard_id, None)

    def to_data(self) -> Tree:
        """Return what was pushed and what each node is taken to keep, as plain data."""
        return {
            "history": [astuple(pushes) for pushes in self.history],
            "nodes": {node_id: node.to_data() for node_id, node in self._nodes.items()},
        }

    def from_data(self, data: Tree, *, messages: bool) -> Callable[[], None]:
        """Return what sets this to where it was that :meth:`to_data` wrote; nothing is changed before that is called.

        Parameters
        ----------
        data : object
            What was written.
        messages : bool
            Whether messages that were on their way still are. If not, what was last pushed to a node that has not
            answered since is taken to be lost with them, and goes again.
        """
        history = [Pushes(*pushes) for pushes in data["history"]]
        nodes = {int(node_id): KeptShards.from_data(node, messages=messages) for node_id, node in data["nodes"].items()}

        def go_on() -> None:
            self.history, self._nodes = history, nodes

        return go_on

    def _pack(self, shard_id: int) -> bytes:
        shards = self._shards
        data = pack_shard(shards[shard_id] if isinstance(shards, Mapping) else shards(shard_id))
        digest = shard_digest(data)
        if self._digests.setdefault(shard_id, digest) != digest:
            raise ValueError(f"shards must be the same in every round; got other arrays for shard {shard_id}")
        return data

    def _named(self, shard_ids: Sequence[int]) -> list[str]:
        for shard_id in shard_ids:
            if shard_id not in self._digests:
                self._pack(shard_id)
        return [self._digests[shard_id] for shard_id in shard_ids]
