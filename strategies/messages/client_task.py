"""What a client is told to do in a round, and which coded updates it sends after how much of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from flwr.app import ConfigRecord, Message, RecordDict
from numpy.typing import NDArray

from fedgc.codes import Code, WorkLists
from fedgc.protocol import (
    BUDGET,
    COEFFICIENTS,
    DEADLINE,
    EXPECTED_EXAMPLES,
    IN_A_ROW,
    RECORD,
    RUN_SEED,
    SEGMENTS,
    SERVER_ROUND,
    SHARD_IDS,
)
from fedgc.records.copies import checked, config_of, own_copy


@dataclass(frozen=True, eq=False)
class ClientTask:
    """One client's part of a round.

    Attributes
    ----------
    code : Code
        The round's code.
    client : int
        The client's index in it.
    shards : ndarray of int, shape (n_assigned,)
        The shards to compute, in order.
    partial : bool
        Whether what is done by the deadline counts, or only all of it.
    in_a_row : bool
        Whether the client trains on from shard to shard.
    """

    code: Code
    client: int
    shards: NDArray[np.intp]
    partial: bool
    in_a_row: bool = False

    @classmethod
    def of(cls, code: Code, client: int, *, in_a_row: bool = False) -> ClientTask:
        """Return the client's part of a code."""
        return cls(code, client, code.shards_of(client), isinstance(code, WorkLists), in_a_row)

    def record(self) -> ConfigRecord:
        """Return the part as the client is told."""
        entries: dict[str, list[int] | list[float]] = {SHARD_IDS: self.shards.tolist()}
        if isinstance(self.code, WorkLists):
            entries[COEFFICIENTS] = [1.0] * self.shards.size
            entries[SEGMENTS] = [segment.size for segment in self.code.segments_of(self.client)]
        else:
            entries[COEFFICIENTS] = self.code.coefficients_of(self.client).tolist()
        return checked(ConfigRecord, entries)

    def message(
        self,
        source: Message,
        told: Mapping[str, int | float],
        configrecord_key: str,
        *,
        allowance: float = 0.0,
        expected: NDArray[np.float64] | None = None,
    ) -> Message:
        """Return the inner strategy's message with the client's part added.

        Parameters
        ----------
        source : Message
            What the inner strategy sends.
        told : mapping
            Round, seed and deadline, by their names in :mod:`fedgc.protocol`.
        configrecord_key : str
            Name of the record that takes the round's number.
        allowance : float
            Seconds before the deadline at which a client with a work list stops working, to be heard in time.
        expected : ndarray, shape (n_assigned,), optional
            Number of examples of each of its shards, NaN where not known, by which such a client may predict its time.
        """
        # Flower's strategies put one config into all messages: copy it before any change can reach the others.
        content = checked(
            RecordDict,
            {
                name: own_copy(record) if isinstance(record, ConfigRecord) else record
                for name, record in source.content.items()
            },
        )
        config = config_of(content, configrecord_key)
        if config is None:
            config = content[configrecord_key] = ConfigRecord()
        config[SERVER_ROUND] = told[SERVER_ROUND]
        assignment = self.record()
        assignment[RUN_SEED], assignment[DEADLINE] = told[RUN_SEED], told[DEADLINE]
        if self.in_a_row:
            assignment[IN_A_ROW] = True
        if self.partial:
            assignment[BUDGET] = max(told[DEADLINE] - allowance, 0.0)
            if expected is not None and np.isfinite(expected).any():
                assignment[EXPECTED_EXAMPLES] = np.where(np.isfinite(expected), expected, -1.0).astype(int).tolist()
        content[RECORD] = assignment
        return Message(
            content,
            dst_node_id=source.metadata.dst_node_id,
            message_type=source.metadata.message_type,
            # A slow node must not work off a queue of rounds that are over, so messages that it has not picked up
            # expire. The time to live counts from here, the deadline from when all are sent: twice covers the sending.
            ttl=2.0 * told[DEADLINE],
            group_id=str(told[SERVER_ROUND]),
        )

    @property
    def most_sums(self) -> int:
        """The most ArrayRecords that its reply may hold, at least one."""
        return 1 if self.in_a_row else max(len(self.rows_after(self.shards.size)), 1)

    def rows_after(self, done: int) -> list[tuple[int, int]]:
        """Return the rows of the encoding matrix that are sent after so many shards, with their numbers of shards."""
        if not isinstance(self.code, WorkLists):
            # A client without shards replies too: with its row, of nothing.
            return [(self.client, done)]
        rows = self.code.rows_after(self.client, done)
        lengths = np.diff(np.minimum(np.cumsum([0, *(s.size for s in self.code.segments_of(self.client))]), done))
        return list(zip(rows.tolist(), lengths[lengths > 0].tolist(), strict=True))
