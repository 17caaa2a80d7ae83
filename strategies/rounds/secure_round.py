"""A round of which the server has the sum of what arrived, and who sent it, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np
from fedgc.strategies.messages.replies import read_reply
from fedgc.strategies.messages.reply_limits import brief_names
from fedgc.strategies.rounds.open_round import OpenRound
from fedgc.strategies.rounds.secure_sum import SecureSum
from flwr.app import ArrayRecord, Message, MetricRecord
from numpy.typing import NDArray

from fedgc.errors import ReplyRejectedError
from fedgc.fixed_point import add_modulo, from_fixed_point, is_fixed_point, largest_entry, zero_sum
from fedgc.records.array_bytes import view
from fedgc.round import CodedUpdate, RoundFold, RoundPlan, RoundState
from fedgc.updates import Arrays, Update, scale_in_place


class SumFold(RoundFold):
    """What has come of a round of which only the sum counts; see :class:`fedgc.round.RoundFold`."""

    def __init__(
        self, state: RoundState, plan: RoundPlan, arrays: Arrays, secure_sum: SecureSum, server_round: int
    ) -> None:
        super().__init__(state, plan, arrays)
        self.trouble: str | None = None
        self._secure_sum, self._server_round = secure_sum, server_round
        self._n_examples = float(state.shard_examples.sum())
        self._like = arrays
        self._total = zero_sum(arrays)
        self._came = np.zeros(plan.decoder.code.n_rows, dtype=np.bool_)

    @property
    def arrived(self) -> NDArray[np.bool_]:
        """Which rows of the encoding matrix have come, (n_rows,)."""
        return self._came

    @property
    def weights(self) -> NDArray[np.float64]:
        """How often each row counts in the sum, (n_rows,)."""
        return self.plan.decoder.decode(self._came).decoding_weights

    def add(self, client: int, reply: CodedUpdate, *, lasting: bool = False) -> list[int]:
        """Take in a client's reply; copies are not told from each other."""
        rows = self.plan.decoder.code.rows_after(client, reply.shards.size)
        self.rows[client] = tuple(rows.tolist())
        self.replies[client] = replace(reply, sums={})
        self._came[rows] = True
        for terms in reply.sums.values():
            add_modulo(self._total, terms)
        return []

    def decoded(self) -> Update | None:
        """Return the decoded sum, None if it cannot be had."""
        total: Arrays = self._total
        if self._secure_sum.unmask is not None:
            nodes = tuple(sorted(self.plan.node_ids[client] for client in self.replies))
            try:
                unmasked = self._secure_sum.unmask(self._server_round, nodes, total)
            except Exception as error:
                # Whatever the user's protocol ran into, a round is what it may cost.
                self.trouble = f"unmask raised {type(error).__name__}: {error}"
                return None
            if unmasked is None:
                self.trouble = "the sum of what arrived cannot be had"
                return None
            total = unmasked
            if set(total) != set(self._like) or not all(is_fixed_point(total[k], v) for k, v in self._like.items()):
                raise ValueError("unmask must return arrays of the model's names and shapes in uint64; got others")
        bits = self._secure_sum.fractional_bits
        update, most = from_fixed_point(total, bits), largest_entry(bits, 1)
        if any(float(np.abs(value).max(initial=0.0)) > most for value in update.values()):
            self.trouble = "the sum of what arrived is out of range (are there masks of clients that did not come?)"
            return None
        # Clients have divided by it, so that their numbers are as large as an update; whoever decodes does so again.
        scale_in_place(update, self._n_examples)
        return update


class SecureRound(OpenRound):
    """A round of which the server has only the sum."""

    @property
    def secure_sum(self) -> SecureSum:
        """How the sum is made."""
        assert self.settings.secure_sum is not None
        return self.settings.secure_sum

    @cached_property
    def fold(self) -> SumFold:
        """What the replies that have been taken in amount to."""
        return SumFold(self.state, self.plan, self.values, self.secure_sum, self.server_round)

    @property
    def sum_only(self) -> bool:
        """True: single replies are not looked into."""
        return True

    @property
    def why_no_update(self) -> str:
        """Why the round has none."""
        return self.fold.trouble or super().why_no_update

    def read(
        self, reply: Message, client: int, seconds: float | None, *, trusted: bool = False
    ) -> tuple[CodedUpdate, MetricRecord]:
        """Return what a client sent, without a look into its arrays."""
        task = self.tasks[client]
        read = read_reply(reply, self.values, task, self.settings.known_sizes, seconds, read_other=self._read_sum)
        return self.believed(read[0], client), read[1]

    def _read_sum(self, record: ArrayRecord, arrays: Arrays, n_examples: float, shards: NDArray[np.intp]) -> Arrays:
        if not record and self.secure_sum.unmask is not None:
            return {}
        if set(record) != set(arrays):
            raise ReplyRejectedError(f"array names must be {brief_names(arrays)}; got {brief_names(record)}")
        terms = {}
        for name, value in arrays.items():
            try:
                terms[name] = view(record[name])
            except Exception as error:
                raise ReplyRejectedError(f"array {name!r} cannot be read: {error}") from None
            if not is_fixed_point(terms[name], value):
                got = f"{terms[name].dtype} of shape {terms[name].shape}"
                raise ReplyRejectedError(f"array {name!r} must be uint64 of shape {value.shape}; got {got}")
        return terms
