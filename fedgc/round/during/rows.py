"""The sum of rows: what clients have moved by, each weighed as the shards of its row are."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fedgc.decoders import CalibratedDecoder
from fedgc.updates import Arrays, ScaledDifference, Update, add_combination, zero_update


class RowSum:
    """The decoded sum of a round of shards in a row.

    Parameters
    ----------
    decoder : CalibratedDecoder
        The round's decoder, whose rows are single shards.
    arrays : mapping of str to ndarray
        The global arrays; only names, shapes and types are used.
    as_planned : bool
        Whether it was known how far clients get; otherwise weights are such that the step is the mean of the ways.

    Attributes
    ----------
    arrived : ndarray of bool, shape (n_rows,)
        Which rows of the encoding matrix have come: one for each shard that a client has done.
    weights : ndarray, shape (n_rows,)
        How often each counts; zero before the sum has been had.
    client_weights : dict of int to float
        The weight of each client's way; empty before.

    Notes
    -----
    With w_ij the decoding weight of shard j from client i and n_j its examples, the way d_i of a client that has done
    the shards S_i counts ``sum_j w_ij n_j / sum_j n_j`` times, over S_i. Holders of a shard have come to it from
    others, so their ways are no copies of each other: all count, and share the shard's weight. That weight is known
    once all have come, and until then there is one model here for each client that has replied, as with FedAvg.

    A plan that is a guess may be wrong by a factor of ten in how far clients get, and the decoded update would be as
    much too long or too short. To be unbiased under a guess is worth nothing; weights are then multiplied by what makes
    the ways count once in all, as with FedAvg of those who came.
    """

    def __init__(self, decoder: CalibratedDecoder, arrays: Arrays, *, as_planned: bool = True) -> None:
        self._decoder, self._arrays, self._as_planned = decoder, arrays, as_planned
        self._ways: dict[int, ScaledDifference] = {}
        self._parts: dict[int, dict[int, float]] = {}
        self.arrived: NDArray[np.bool_] = np.zeros(decoder.code.n_rows, dtype=np.bool_)
        self.weights: NDArray[np.float64] = np.zeros(decoder.code.n_rows)
        self.client_weights: dict[int, float] = {}

    def add(self, client: int, parts: Mapping[int, ScaledDifference]) -> None:
        """Take in a client's way, as the part of it that each row of the encoding matrix has."""
        self.arrived[list(parts)] = True
        whole = sum(part.scale for part in parts.values())
        if whole > 0.0:
            first = next(iter(parts.values()))
            self._ways[client] = ScaledDifference(first.new, first.old, 1.0)
            # Parts of the way, whatever sizes they go by: a client has not moved further because others count more.
            self._parts[client] = {row: part.scale / whole for row, part in parts.items()}

    def way(self, client: int) -> ScaledDifference | None:
        """Return what a client has moved by, None if it has done nothing."""
        return self._ways.get(client)

    @property
    def progress(self) -> float:
        """How many shards a client has done, in the mean of all clients."""
        return float(self.arrived.sum()) / self._decoder.code.n_clients

    def finish(self) -> Update:
        """Return the decoded sum, zero if nothing came; it can be had once."""
        total = zero_update(self._arrays)
        if self._ways:
            self.weights = self._decoder.decode(self.arrived).decoding_weights
            self.client_weights = {
                client: float(sum(self.weights[row] * part for row, part in parts.items()))
                for client, parts in self._parts.items()
            }
            total_weight = sum(self.client_weights.values())
            if not self._as_planned and total_weight > 0.0:
                once = self._decoder.code.n_shards / (self.progress * total_weight)
                self.weights = self.weights * once
                self.client_weights = {client: once * weight for client, weight in self.client_weights.items()}
            ways = [self._ways[client] for client in self.client_weights]
            add_combination([total], np.array([list(self.client_weights.values())]), ways)
        self._ways.clear()
        return total
