"""Fold: take in the replies of a round as they come, so that the server holds sums and not replies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fedgc.codes import Code
from fedgc.decoders import StreamingSum
from fedgc.memory import MemoryStore, UpdateMemory, units_of
from fedgc.moments import SecondMoment
from fedgc.round.during.copies import Copies
from fedgc.round.during.probe import Probe
from fedgc.round.during.rows import RowSum
from fedgc.round.sizes import known_or_mean
from fedgc.round.state import CodedUpdate, RoundPlan, RoundState
from fedgc.updates import Arrays, Combination, ScaledDifference, Update, add_scaled, is_shorter, scale_in_place
from fedgc.updates.weighted_sum import squared_length

#: Number of examples of an empty shard where sizes divide what a unit had.
LEAST_SIZE = 1e-9


class RoundFold:
    """What has come of a round so far: running sums of the updates, and all else that was in the replies.

    Parameters
    ----------
    state : RoundState
        The state that the plan was made from.
    plan : RoundPlan
        The round's plan.
    arrays : mapping of str to ndarray
        The global arrays; only names, shapes and types are used.
    secret : int
        Seed of the entries by which copies are compared, see :class:`fedgc.round.during.copies.Copies`.
    second_moment : SecondMoment, optional
        How the square of the exact update is estimated, if the inner strategy wants to know.

    Attributes
    ----------
    replies : dict of int to CodedUpdate
        What each client has sent, by client index, without its sums.
    rows : dict of int to tuple of int
        The rows of the encoding matrix that each client has sent.
    energies : list of float
        Squared norm per example squared of the sums that share no shard, of the entries that a probe takes.
    observed : list of int
        The row that each of these is of, but for shards in a row.
    averaged : list of float
        With shards in a row, how many shards each of these is the mean of; their own are not known.
    copies : Copies
        How sums over the same shards compare: all holders of a shard are to compute the same update.
    kept : dict of int to (mapping of str to ndarray)
        With a memory, the sums by row: what it is to remember. Of copies of a sum their mean is kept, in one row.

    Notes
    -----
    Without a memory the server's room for updates is two models, see :class:`fedgc.decoders.StreamingSum`, however many
    reply; with one there is a model for each block, or shard, that came, where its store keeps it. With shards in a row
    it is a model for each client that has replied, see :class:`fedgc.round.during.rows.RowSum`.
    """

    def __init__(
        self,
        state: RoundState,
        plan: RoundPlan,
        arrays: Arrays,
        secret: int = 0,
        second_moment: SecondMoment | None = None,
    ) -> None:
        self.plan = plan
        self.replies: dict[int, CodedUpdate] = {}
        self.rows: dict[int, tuple[int, ...]] = {}
        self.energies: list[float] = []
        self.averaged: list[float] = []
        self.observed: list[int] = []
        self.kept: dict[int, Arrays] = {}
        self.memory: UpdateMemory | None = None
        if state.memory is not None:
            sizes = np.maximum(known_or_mean(state.shard_examples), LEAST_SIZE)
            self.memory = state.memory.for_units(units_of(plan.decoder.code), sizes)
        self._arrays = arrays
        self._stream = StreamingSum(plan.decoder, arrays)
        self._rows = RowSum(plan.decoder, arrays, as_planned=not plan.is_guess) if plan.in_a_row else None
        self._square = None
        if second_moment is not None:
            self._square = second_moment.begin(plan.decoder, plan.arrivals, plan.gram, arrays)
        self._copies: dict[int, tuple[int, int]] = {}
        self.copies = Copies(plan.decoder, arrays, secret)
        self._probe = Probe(arrays)
        self._probed: NDArray[np.float64] | None = None
        self._seen = np.zeros(plan.decoder.code.n_shards, dtype=np.bool_)
        self._decoded: Update | None = None

    @classmethod
    def of(cls, state: RoundState, plan: RoundPlan, replies: Mapping[int, CodedUpdate], arrays: Arrays) -> RoundFold:
        """Return what has come once these replies have, by client index."""
        fold = cls(state, plan, arrays)
        for client in sorted(replies):
            fold.add(client, replies[client])
        return fold

    @property
    def arrived(self) -> NDArray[np.bool_]:
        """Which rows of the encoding matrix have come, (n_rows,)."""
        return self._stream.arrived if self._rows is None else self._rows.arrived

    @property
    def weights(self) -> NDArray[np.float64]:
        """How often each row counts in the decoded sum, (n_rows,); zero as long as that has not been had."""
        return self._stream.weights if self._rows is None else self._rows.weights

    @property
    def nothing_came(self) -> bool:
        """Whether no client has sent any work; it may have replied all the same."""
        return not any(reply.shard_examples.any() for reply in self.replies.values())

    @property
    def step(self) -> float:
        """The plan's step, or if that was a guess, how many shards a client has done in the mean."""
        if self._rows is None or not self.plan.is_guess or self.nothing_came:
            return self.plan.step
        return self._rows.progress

    @property
    def variance_factors(self) -> list[float]:
        """What the clients have measured of the rounding of their sums, see :class:`CodedUpdate`."""
        return [factor for reply in self.replies.values() for factor in reply.variance_factors]

    def probe(self, update: Arrays) -> NDArray[np.float64]:
        """Return the sample of an update's entries that `energies` are of."""
        return self._probe.of(update)

    @property
    def sum_energy(self) -> float:
        """Squared norm of the sum of what `energies` are of."""
        return 0.0 if self._probed is None else squared_length(self._probed)

    def add(self, client: int, reply: CodedUpdate, *, lasting: bool = False) -> list[int]:
        """Take in a client's reply.

        Parameters
        ----------
        client : int
            The client.
        reply : CodedUpdate
            Its reply. The sums are not needed any more afterwards, unless they are said to be lasting.
        lasting : bool
            Whether the sums stay there until the round is decoded; see :meth:`fedgc.decoders.StreamingSum.add`.

        Returns
        -------
        copies : list of int
            The rows that are further copies of what has come before, and not decoded.
        """
        self.rows[client] = tuple(reply.sums)
        self.replies[client] = replace(reply, sums={})
        if self._rows is not None:
            self._add_row(self._rows, client, reply)
            return []
        examples = dict(zip(reply.shards.tolist(), reply.shard_examples.tolist(), strict=True))
        copies = []
        for row, total in reply.sums.items():
            probed = self._probe.of(total)
            if self.plan.bits is None:  # who rounds for itself sends another sum
                self.copies.note(client, row, total)
            self._observe(row, probed, examples)
            if self.memory is not None:
                self._keep(self.memory.store, row, total)
            if self._square is not None:
                self._square.add(row, total, lasting=lasting)
            if not self._stream.add(row, total, lasting=lasting):
                copies.append(row)
        return copies

    def decoded(self) -> Update | None:
        """Return the decoded sum; it can be had once, and of some rounds not at all."""
        total, self._decoded = self._decoded, None
        return self._finish() if total is None else total

    def square(self, decoded: Arrays, scale: float) -> Update | None:
        """Return the estimated square of the exact update, if it is wanted; it can be had once.

        Parameters
        ----------
        decoded : mapping of str to ndarray
            The decoded update: the decoded sum times `scale`.
        scale : float
            What sums are multiplied by to be updates.
        """
        return None if self._square is None else self._square.square(decoded, scale)

    def decodes_to_less_than(self, most: float) -> bool:
        """Return whether the decoded sum is finite and, per example, each array shorter than `most`.

        Nothing more can be taken in then.
        """
        self._decoded = self._finish()
        # Ways are not weighted by examples, but as the longest of them may be.
        in_a_row = self._rows is not None
        terms = [1.0 if in_a_row else float(reply.shard_examples.sum()) for reply in self.replies.values()]
        return is_shorter(self._decoded, most * max(sum(terms), 1.0))

    def total_weight(self, sizes: NDArray[np.float64], coverage: NDArray[np.float64]) -> float:
        """Return how often all that came counts in the mean, one without stragglers, given sizes and coverage."""
        if self._rows is None:
            return float(coverage @ sizes) / float(sizes.sum())
        return sum(self._rows.client_weights.values()) / sizes.size

    def coverage(self, decoded: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return how often each shard's update counts, given the coverage of what was decoded.

        In a row all shards of a client count alike, by the mean of what they were to.
        """
        if self._rows is None:
            return decoded
        counted = np.zeros(decoded.size)
        for client, weight in self._rows.client_weights.items():
            counted[self.replies[client].shards] += weight
        return counted

    def _finish(self) -> Update:
        return self._stream.finish() if self._rows is None else self._rows.finish()

    def _observe(self, row: int, probed: NDArray[np.float64], examples: Mapping[int, float]) -> None:
        """Note how large an update per example is, and how alike to the others.

        With a memory it is their changes that count, since these are what is decoded.
        """
        shards, coefficients = row_of(self.plan.decoder.code, row)
        # A decoder may have chosen coefficients that differ within a block; such a sum is not the block's update.
        here = float(np.array([examples.get(shard, 0.0) for shard in shards.tolist()]).sum())
        if here == 0.0 or self._seen[shards].any() or coefficients.max() != coefficients.min():
            return
        self._seen[shards] = True
        change = probed
        if self.memory is not None:
            for coefficient, known in self.memory.parts_of(shards, coefficients):
                change = change - coefficient * self._probe.of(known)
        change = change / (here * coefficients[0])
        self.energies.append(squared_length(change))
        self.observed.append(row)
        self._probed = change if self._probed is None else self._probed + change

    def _add_row(self, rows: RowSum, client: int, reply: CodedUpdate) -> None:
        """Take in a client's row, and note how long its way is per example.

        Holders of a shard have come to it from others: their ways are not to be equal.
        """
        parts = {row: part for row, part in reply.sums.items() if isinstance(part, ScaledDifference)}
        rows.add(client, parts)
        way, sizes = rows.way(client), reply.shard_examples
        if way is None or self._seen[reply.shards].any():
            return
        self._seen[reply.shards] = True
        moved = self._probe.of(way) / sizes.sum()
        self.energies.append(squared_length(moved))
        self.averaged.append(float(sizes.sum() ** 2 / (sizes @ sizes)))
        self._probed = moved if self._probed is None else self._probed + moved

    def _keep(self, store: MemoryStore, row: int, total: Arrays) -> None:
        early = self.plan.decoder.early_weights(row)
        copy_of = -1 - row if early is None else early.copy_of
        first, copies = self._copies.get(copy_of, (row, 0))
        self._copies[copy_of] = first, copies + 1
        if copies == 0:
            self.kept[row] = store.keep(Combination([1.0], [total]))
            return
        known, share = self.kept[first], 1.0 / (copies + 1)
        if isinstance(known, dict):  # its arrays were made above and are nobody else's yet
            scale_in_place(known, 1.0 - share)
            add_scaled(known, share, total)
        else:
            self.kept[first] = store.keep(Combination([1.0 - share, share], [known, total]))


def row_of(code: Code, row: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return the shards and coefficients of a row of the encoding matrix."""
    start, end = code.sparse_matrix.indptr[row : row + 2]
    return code.sparse_matrix.indices[start:end].astype(np.intp), code.sparse_matrix.data[start:end]
