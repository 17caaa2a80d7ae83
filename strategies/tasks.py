"""What a client is told to do in a round, and which coded updates it sends after how much of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from flwr.app import ConfigRecord
from numpy.typing import NDArray

from fedgc.codes import Code, WorkLists
from fedgc.protocol import COEFFICIENTS, SEGMENTS, SHARD_IDS


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
    """

    code: Code
    client: int
    shards: NDArray[np.intp]
    partial: bool

    @classmethod
    def of(cls, code: Code, client: int) -> ClientTask:
        """Return the client's part of a code."""
        return cls(code, client, code.shards_of(client), isinstance(code, WorkLists))

    def record(self) -> ConfigRecord:
        """Return the part as the client is told."""
        record = ConfigRecord({SHARD_IDS: self.shards.tolist()})
        if isinstance(self.code, WorkLists):
            record[COEFFICIENTS] = [1.0] * self.shards.size
            record[SEGMENTS] = [segment.size for segment in self.code.segments_of(self.client)]
        else:
            record[COEFFICIENTS] = self.code.coefficients_of(self.client).tolist()
        return record

    def rows_after(self, done: int) -> list[tuple[int, int]]:
        """Return the rows of the encoding matrix that are sent after so many shards, with their numbers of shards."""
        if not isinstance(self.code, WorkLists):
            return [(self.client, done)]
        rows = self.code.rows_of(self.client)[self.code.progress_outcomes(self.client)[done]]
        lengths = np.diff(np.minimum(np.cumsum([0, *(s.size for s in self.code.segments_of(self.client))]), done))
        return list(zip(rows.tolist(), lengths[lengths > 0].tolist(), strict=True))
