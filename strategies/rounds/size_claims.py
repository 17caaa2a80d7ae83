"""How many examples shards have, as their holders say: what holds in a round, and what is learnt from it."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import astuple, replace
from typing import Any

import numpy as np
from fedgc.strategies.rounds.size_disagreements import SizeDisagreement
from fedgc.strategies.rounds.typical_sizes import TypicalSizes
from numpy.typing import NDArray

from fedgc.codes import Code
from fedgc.errors import NothingToReadError, ReplyRejectedError
from fedgc.round import CodedUpdate, RoundState, learn_sizes, row_of
from fedgc.updates import Arrays, Combination, ScaledDifference

#: A shard may have so many times the examples that others have in the median, or so many if that is more: sizes of
#: different shards may well be far apart, and a wrong one would be the weight of a shard.
_BEYOND_OTHERS, _PLAUSIBLE = 1e4, 1e6
#: And so many where nobody else has told of any.
_MOST_EXAMPLES = 1e9
#: The first word on a shard that others hold too is taken for at most so many times what shards have in the median:
#: by the time that others confirm it, the sum has been added to the rest.
_UNCONFIRMED = 10.0
#: A sum weighs next to nothing if its terms' weights add up to this fraction of what they are, or less.
_CANCELLED = 0.1


class SizeClaims:
    """The number of examples of each shard that holds in a round, and what its replies have said.

    Parameters
    ----------
    state : RoundState
        What is known already.
    code : Code
        Which shards each row of the encoding matrix is over, and who holds them.
    given : bool
        Whether all sizes have been given, and replies that say others are refused before they come here.

    Attributes
    ----------
    disagreements : list of SizeDisagreement
        Nodes that have said different numbers of examples of a shard, one of them the first in the round; or one that
        has said so before and since; the lower node id first.

    Notes
    -----
    Decoded is ``sum_j v_j N_j update_j / sum_j N_j``, for the coverage v. If every holder put its own N_j into the sum
    that it sends, and the divisor had somebody else's, that would not even be a mean: where all updates are one it
    would be whatever the sizes make of it. So a shard has one size in a round: what is known from the rounds before or,
    of a shard of which nothing is, what the first one says. A sum whose sender has counted others is multiplied by what
    it would weigh with the sizes that hold over what it does weigh. That is exact for a sum over one shard, and for one
    over more as far as their updates are alike.

    What is said in a round holds from the next one on, see :func:`fedgc.round.learn_sizes`. To vote within the round
    would need the replies kept until it is over; and the decoding weights, too, were made for the sizes that were
    known: a shard of none then may count ten million times, as nothing would come of it. Nobody is left out for saying
    another number than the others, since nobody knows who is right: only one that is absurd is refused, and a sum over
    no examples of shards that have some, which no factor can give its weight.

    Examples
    --------
    >>> from fedgc.codes import FractionalRepetition
    >>> state = RoundState(np.array([40.0, 50.0, np.nan]))
    >>> claims = SizeClaims(state, FractionalRepetition([0, 0], [0, 0, 0]))
    >>> claims.agree(7, CodedUpdate({}, np.array([2]), np.array([1e9])))
    Traceback (most recent call last):
    ...
    fedgc.errors.ReplyRejectedError: examples of shard 2 must be at most 1e+06, as others' sizes show; got 1e+09
    >>> claims.agree(8, CodedUpdate({}, np.array([0, 2]), np.array([45.0, 60.0]))).shard_examples
    array([40., 60.])
    >>> claims.agree(9, CodedUpdate({}, np.array([0, 2]), np.array([45.0, 70.0]))).shard_examples
    array([40., 60.])
    >>> claims.learnt(state).shard_examples
    array([45., 50., 60.])
    """

    def __init__(self, state: RoundState, code: Code, *, given: bool = False) -> None:
        self._state, self._code, self._given = state.shard_examples, code, given
        self._claims = state.claims
        self._sizes = _to_go_by(state.shard_examples)
        self._said: dict[int, tuple[NDArray[np.intp], NDArray[np.float64]]] = {}
        self._late: list[tuple[int, NDArray[np.intp], NDArray[np.float64]]] = []
        self._first: dict[int, tuple[int, float]] = {}
        self._typical: TypicalSizes | None = None
        self._shared: NDArray[np.bool_] | None = None
        self.disagreements: list[SizeDisagreement] = []

    def copy(self) -> SizeClaims:
        """Return the same as before any reply, to go on from."""
        fresh = copy(self)
        fresh._sizes, fresh._said, fresh._first = _to_go_by(self._state), {}, {}
        fresh._late, fresh._typical, fresh.disagreements = list(self._late), None, []
        return fresh

    @property
    def nothing_known(self) -> bool:
        """Whether no shard's size is known, so that a first claim has nothing to be held against."""
        return not np.isfinite(self._sizes).any()

    @property
    def typical(self) -> TypicalSizes:
        """How large shards are, by all that has been said of them."""
        if self._typical is None:
            self._typical = TypicalSizes(self._claims, self._state)
            for node, (_, counts) in self._said.items():
                self._typical.set(node, counts)
        return self._typical

    def agree(self, node: int, update: CodedUpdate) -> CodedUpdate:
        """Return a reply with the sizes that hold in this round, and its sums weighted by them.

        Parameters
        ----------
        node : int
            Flower's id of the node that it is from.
        update : CodedUpdate
            The reply, with the sizes that the node says.

        Raises
        ------
        NothingToReadError
            If all shards of a sum have no examples, and have had some.
        ReplyRejectedError
            If it says that a shard has more than any may.
        """
        if self._given:
            return update
        shards, said = update.shards, update.shard_examples
        self._check(node, shards, said)
        self._note(node, shards, said)
        new = np.isnan(self._sizes[shards])
        if new.any():
            self._sizes[shards[new]] = self._first_word(shards[new], said[new])
        if np.array_equal(self._sizes[shards], said):
            return update
        theirs = np.zeros(self._sizes.size)
        theirs[shards] = said
        sums = {row: self._weighted(row, total, theirs) for row, total in update.sums.items()}
        return replace(update, sums=sums, shard_examples=self._sizes[shards])

    def hear_late(self, before: SizeClaims) -> None:
        """Take note of what has been said of the round before since it ended, and of who disagreed there."""
        self._late += [(node, *said) for node, said in before._said.items()]
        before._said.clear()
        self.disagreements, before.disagreements = before.disagreements + self.disagreements, []

    def learnt(self, state: RoundState) -> RoundState:
        """Return the state after the round with what has been said in it; late replies are weighted by that, too."""
        if self._given:
            return state
        said = [*self._late, *((node, *said) for node, said in self._said.items())]
        state = learn_sizes(state, said, self._usual)
        self._state, self._claims, self._sizes = state.shard_examples, state.claims, _to_go_by(state.shard_examples)
        self._late, self._typical, self.disagreements = [], None, []
        self._said.clear()
        return state

    def to_data(self) -> dict[str, Any]:
        """Return what has been said since the state was learnt that the claims were made from, as plain data."""
        return {
            "sizes": self._sizes,
            "said": list(self._said.items()),
            "late": self._late,
            "first": self._first,
            "typical": None if self._typical is None else self._typical.of_node,
            "disagreements": [astuple(one) for one in self.disagreements],
        }

    def restore(self, data: Mapping[str, Any]) -> SizeClaims:
        """Return these claims, made from the same state, with what :meth:`to_data` wrote."""
        self._sizes = np.array(data["sizes"])
        self._said = {node: (np.array(shards), np.array(said)) for node, (shards, said) in data["said"]}
        self._late = [(node, np.array(shards), np.array(said)) for node, shards, said in data["late"]]
        self._first = {shard: tuple(first) for shard, first in data["first"].items()}
        if data["typical"] is not None:
            self._typical = TypicalSizes.of_nodes(data["typical"], self._state)
        self.disagreements = [SizeDisagreement(*one) for one in data["disagreements"]]
        return self

    def _usual(self) -> float | None:  # all nodes' medians, which most rounds can do without
        return self.typical.of_all()

    def _check(self, node: int, shards: NDArray[np.intp], said: NDArray[np.float64]) -> None:
        usual = np.maximum(np.nan_to_num(self._state[shards]), _PLAUSIBLE)
        for shard, count, limit in zip(shards, said, usual, strict=True):
            if count > limit:
                typical = self.typical.of_others(node, shards)
                most = max(limit, _MOST_EXAMPLES if typical is None else _BEYOND_OTHERS * typical)
                if count > most:
                    self.typical.set(node, None)
                    raise ReplyRejectedError(
                        f"examples of shard {shard} must be at most {most:g}, as others' sizes show; got {count:g}"
                    )

    def _note(self, node: int, shards: NDArray[np.intp], said: NDArray[np.float64]) -> None:
        self._said[node] = shards, said
        if self._typical is not None:
            self._typical.set(node, said)
        for shard, count in zip(shards.tolist(), said.tolist(), strict=True):
            first = self._first.setdefault(shard, (node, count))
            self._compare(shard, (node, count), first)
            before = self._claims.get(shard, {})
            if before.get(node) == count:
                # What others have said since it said the same before: their data differs, and has not merely grown.
                since = [*before.items()]
                for other in since[since.index((node, count)) + 1 :]:
                    self._compare(shard, (node, count), other)

    def _compare(self, shard: int, *said: tuple[int, float]) -> None:
        one, other = sorted(said)
        if one[1] != other[1]:
            self.disagreements.append(SizeDisagreement(shard, (one[0], other[0]), (one[1], other[1])))

    def _first_word(self, shards: NDArray[np.intp], said: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the sizes of shards of which nothing is known yet, of which their first holder says this."""
        if self._shared is None:
            clients = range(self._code.n_clients)
            held = np.concatenate([np.zeros(0, np.intp), *(self._code.shards_of(client) for client in clients)])
            self._shared = np.bincount(held, minlength=self._sizes.size) > 1
        typical = self.typical.of_all() if self._shared[shards].any() else None
        if typical is None:
            return said
        return np.where(self._shared[shards], np.minimum(said, np.floor(_UNCONFIRMED * typical)), said)

    def _weighted(self, row: int, total: Arrays, theirs: NDArray[np.float64]) -> Arrays:
        """Return a sum as it would weigh with the sizes that hold, where its sender counted others."""
        shards, coefficients = row_of(self._code, row)
        ours, theirs = self._sizes[shards], theirs[shards]
        if not theirs.any():
            if ours.any():
                shard, size = shards[ours > 0.0][0], ours[ours > 0.0][0]
                raise NothingToReadError(f"shard {shard} must have examples, {size:g} as was said before; got 0")
            return total
        if abs(coefficients @ theirs) < _CANCELLED * (np.abs(coefficients) @ theirs):
            coefficients = np.ones(shards.size)  # a sum of which the terms cancel has no weight to go by
        factor = float(coefficients @ ours) / float(coefficients @ theirs)
        if isinstance(total, ScaledDifference):
            return replace(total, scale=total.scale * factor)
        return Combination([factor], [total])


def _to_go_by(sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a copy of known sizes; if no shard had any examples, all are as good as unknown."""
    return sizes.copy() if (sizes > 0.0).any() else np.full(sizes.size, np.nan)
