"""The data of the shards of one message: what the server pushes, what the disk keeps, or the client's own source."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

from fedgc.clients.shard_sources import MissingShardError, ShardSource
from fedgc.clients.shard_store import ShardStore
from flwr.app import ConfigRecord, Context, RecordDict

from fedgc.protocol import (
    ASKED_DIGESTS,
    ASKED_SHARDS,
    BUDGET,
    KEPT_SHARDS,
    LACKING_SHARDS,
    PUSHED,
    PUSHED_DATA,
    RECORD,
    SEGMENTS,
    SHARD_DIGESTS,
    SHARD_IDS,
)
from fedgc.records.copies import config_of, own_copy
from fedgc.shard_format import check_digest, shard_digest, unpack_shard
from fedgc.validation import check_integer

logger = logging.getLogger("flwr.fedgc")

#: A source or a store, or a function that makes it for a node, from its ``context``.
SourceLike = ShardSource[Any] | Callable[[Context], ShardSource[Any]]
StoreLike = ShardStore | Callable[[Context], ShardStore]


class ShardsAtHand:
    """What a client can get at of the shards that a message names.

    Parameters
    ----------
    content : RecordDict
        The message's content, with pushed shards in it or without.
    assignment : ConfigRecord
        What the client is to do.
    context : Context
        The node's context.
    source, store : optional
        The client's own source, and its store of pushed shards, which goes first if the server has the shards.

    Raises
    ------
    ValueError
        If the message names shards by anything but integers and digests, or there is nothing to load shards from.

    Notes
    -----
    A pushed shard whose hash is not the one that was named, or which is no packed shard, is not used and counts as
    lacking: a transfer may go wrong, and the server sends it again. One that the store has no room for is used in this
    round, from memory, and lacks afterwards.
    """

    def __init__(
        self,
        content: RecordDict,
        assignment: ConfigRecord,
        context: Context,
        source: SourceLike | None,
        store: StoreLike | None,
    ) -> None:
        start = time.monotonic()
        self._assigned = RECORD in content
        self._missing: int | None = None
        self._source: ShardSource[Any] | None = None
        self._store: ShardStore | None = None
        self._named: dict[int, str] = {}
        self._unkept: dict[int, bytes] = {}
        assigned: dict[int, str] = {}
        if store is not None and SHARD_DIGESTS in assignment:
            self._store = store if isinstance(store, ShardStore) else store(context)
            assigned = _named(assignment, SHARD_IDS, SHARD_DIGESTS)
            self._named = assigned | _named(assignment, ASKED_SHARDS, ASKED_DIGESTS)
            for shard_id, digest in assigned.items():
                self._receive(content, shard_id, digest, spare=list(assigned.values()))
        elif source is not None:
            self._source = source if hasattr(source, "load") else cast(Any, source)(context)
        elif store is not None:
            raise ValueError("the server pushes no shards: give gradient_coded a source, or GradientCoding shards")
        #: Whether work can begin: nothing of the full schedule counts unless all of it is done.
        self.ready = SEGMENTS in assignment or all(map(self.has, assigned))
        #: The assignment with what is left of its time: to write shards to disk takes of it, but is not work.
        self.assignment = own_copy(assignment)
        if BUDGET in assignment:
            self.assignment[BUDGET] = cast(float, assignment[BUDGET]) - (time.monotonic() - start)

    def _receive(self, content: RecordDict, shard_id: int, digest: str, spare: Sequence[str]) -> None:
        data = b"".join(_parts(content, shard_id))
        if not data or self._store is None:
            return
        try:
            if shard_digest(data) != digest:
                raise ValueError(f"its SHA-256 must be {digest}; got {shard_digest(data)}")
            if len(data) > self._store.max_bytes:
                raise ValueError(f"it must fit into {self._store}; got {len(data)} bytes")
            unpack_shard(data)
        except ValueError as error:
            logger.warning("shard %d is not taken as it was pushed: %s", shard_id, error)
            return
        try:
            kept = self._store.put(data, spare=spare)
        except OSError as error:
            logger.warning("shard %d cannot be kept: %s", shard_id, error)
            kept = False
        if not kept:
            self._unkept[shard_id] = data

    def has(self, shard_id: int) -> bool:
        """Return whether a shard can be had, as far as that is known without reading it."""
        return self._store is None or shard_id in self._unkept or self._named[shard_id] in self._store

    def load(self, shard_id: int) -> Any:  # noqa: ANN401  (whatever the user's source returns)
        """Return a shard's data.

        Raises
        ------
        MissingShardError
            If it is lacking.
        """
        if self._source is not None:
            return self._source.load(shard_id)
        if self._store is None:
            raise MissingShardError(f"shard {shard_id} has no source")
        if shard_id in self._unkept:
            return unpack_shard(self._unkept[shard_id])
        arrays = self._store.load(self._named[shard_id])
        if arrays is None:
            raise MissingShardError(f"shard {shard_id} has not been pushed yet, or is no longer kept")
        return arrays

    def argument(self, shard_id: int) -> dict[str, Any] | None:
        """Return a shard's data as the train function's argument, no argument if it needs none, None if it is lacking.

        Raises
        ------
        MissingShardError
            If it is lacking and the server is none of ours, which would take what is left for all.
        """
        if self._source is None and self._store is None:
            return {}
        try:
            return {"shard": self.load(shard_id)}
        except MissingShardError:
            if not self._assigned:
                raise
            self._missing = shard_id
            return None

    def report(self) -> dict[str, int | list[int]]:
        """Return what the reply says of the shards that the message named."""
        if self._store is None:
            return {} if self._missing is None else {LACKING_SHARDS: [self._missing]}
        lacking = [shard_id for shard_id, digest in self._named.items() if digest not in self._store]
        kept: dict[str, int | list[int]] = {KEPT_SHARDS: len(self._named) - len(lacking)}
        return kept | {LACKING_SHARDS: lacking} if lacking else kept


def _parts(content: RecordDict, shard_id: int) -> list[bytes]:
    parts: list[bytes] = []
    while (record := config_of(content, PUSHED.format(shard_id, len(parts)))) is not None:
        part = record.get(PUSHED_DATA)
        parts.append(part if isinstance(part, bytes) else b"")
    return parts


def _named(record: ConfigRecord, ids_key: str, digests_key: str) -> dict[int, str]:
    ids, digests = record.get(ids_key, []), record.get(digests_key, [])
    if not isinstance(ids, list) or not isinstance(digests, list) or len(ids) != len(digests):
        raise ValueError(f"{digests_key} must be one for each of {ids_key}; got {digests!r:.80}")
    return {
        check_integer(ids_key, shard_id, low=0): check_digest(digests_key, digest)
        for shard_id, digest in zip(ids, digests, strict=True)
    }
