"""What the server takes a node to keep of the shards that it was sent."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from flwr.app import ConfigRecord, Metadata

from fedgc.checkpoint import Tree
from fedgc.protocol import KEPT_SHARDS, LACKING_SHARDS, SHARD_IDS
from fedgc.records.trees import metadata_from_tree, metadata_to_tree

logger = logging.getLogger("flwr.fedgc")

#: Messages per node whose replies may still tell something: this round's and those of two before.
_MOST_PENDING = 3


@dataclass(frozen=True, eq=False)
class Sent:
    """What one message said: its metadata gets the id on sending; the message itself would keep the data in memory."""

    metadata: Metadata
    named: list[int]
    pushed: list[int]


class KeptShards:
    """What the server knows of the shards on a node."""

    def __init__(self) -> None:
        self.kept: dict[int, None] = {}  # the shards that were last assigned come last
        self.pending: list[Sent] = []
        self.answered = False
        self.takes_pushes = True

    def sent(self, sent: Sent) -> None:
        """Note a message: what was pushed is taken to be kept."""
        self.kept = {shard_id: None for shard_id in sent.named if shard_id in self.kept or shard_id in sent.pushed}
        self.pending = [*self.pending, sent][-_MOST_PENDING:]

    def heard(self, sent: Sent, said: ConfigRecord) -> list[int]:
        """Return the shards that a node says it lacks; what makes no sense is passed over."""
        kept, lacking = said.get(KEPT_SHARDS), said.get(LACKING_SHARDS, [])
        if kept is None and SHARD_IDS in said and self.takes_pushes:
            logger.warning("node %d has no store for shards: it is sent none", sent.metadata.dst_node_id)
            self.takes_pushes = False
            return sent.named
        if type(kept) is not int or not isinstance(lacking, list) or kept + len(lacking) != len(sent.named):
            return []
        missing = set(lacking)
        for shard_id in sent.named:
            if shard_id not in missing:
                self.kept.setdefault(shard_id)
        self.answered = True
        return [shard_id for shard_id in sent.named if shard_id in missing]

    def to_data(self) -> Tree:
        """Return all this as plain data."""
        return {
            "kept": list(self.kept),
            "pending": [(metadata_to_tree(sent.metadata), sent.named, sent.pushed) for sent in self.pending],
            "answered": self.answered,
            "takes_pushes": self.takes_pushes,
        }

    @classmethod
    def from_data(cls, data: Tree, *, messages: bool) -> KeptShards:
        """Return what :meth:`to_data` wrote; without the messages, if these are lost, nor what they brought."""
        node = cls()
        node.answered, node.takes_pushes = bool(data["answered"]), bool(data["takes_pushes"])
        pending = [Sent(metadata_from_tree(metadata), named, pushed) for metadata, named, pushed in data["pending"]]
        lost = set() if messages else {shard_id for sent in pending for shard_id in sent.pushed}
        node.kept = {shard_id: None for shard_id in data["kept"] if shard_id not in lost}
        node.pending = pending if messages else []
        return node
