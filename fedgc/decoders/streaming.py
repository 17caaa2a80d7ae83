"""Decode replies as they come: two running sums and a reply that waits at most, whatever the number of replies."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedgc.decoders.base import CalibratedDecoder
from fedgc.decoders.decoding import EarlyWeights
from fedgc.updates import Arrays, ScaledDifference, Update, add_combination, zero_update
from fedgc.validation import check_integer

#: Updates that are added together. Each that waits takes a model's room.
_TOGETHER = 2


class StreamingSum:
    """The decoded update, accumulated reply by reply.

    Parameters
    ----------
    decoder : CalibratedDecoder
        A decoder, calibrated for the round.
    arrays : mapping of str to ndarray
        The global arrays; only names, shapes and types are used.

    Notes
    -----
    The weight of a coded update is ``alone + common R``, where the scalar R is known when the round ends. With
    ``S1 = sum of alone * update`` and ``S2 = sum of common * update`` the decoded update is ``S1 + R S2``; S2 is not
    made before it is needed. Of equal coded updates the first counts. Updates whose weights depend on what else comes
    are kept until the end: prefix sums of lists that share shards, and what least squares solves for together, in codes
    other than blocks. `held` tells how many. Of the others one waits for the next, since to add two together reads and
    writes the sums half as often.

    Examples
    --------
    >>> from fedgc.codes import FractionalRepetition
    >>> from fedgc.decoders import OptimalUnbiasedDecoder
    >>> from fedgc.gram import GramModel
    >>> code = FractionalRepetition([0, 0, 1], [0, 1])
    >>> decoder = OptimalUnbiasedDecoder().calibrate(code, [0.5, 0.5, 0.2], GramModel.uniform(2, 0.0))
    >>> stream = StreamingSum(decoder, {"w": np.zeros(1)})
    >>> stream.add(0, {"w": np.ones(1)}), stream.add(1, {"w": np.ones(1)})
    (True, False)
    >>> stream.finish()["w"].round(12).tolist()
    [1.333333333333]
    """

    def __init__(self, decoder: CalibratedDecoder, arrays: Arrays) -> None:
        self._decoder = decoder
        self._arrays = arrays
        self._sums: dict[int, Update] = {}  # 0 for those of alone, 1 for those of common
        self._counted: set[int] = set()
        self._early: dict[int, EarlyWeights | None] = {}
        self._held: dict[int, tuple[EarlyWeights | None, Arrays]] = {}
        self._waiting: list[tuple[EarlyWeights, Arrays]] = []
        self.arrived: NDArray[np.bool_] = np.zeros(decoder.code.n_rows, dtype=np.bool_)
        #: How often each row counts in the decoded update, once that is finished: of copies only the first does.
        self.weights: NDArray[np.float64] = np.zeros(decoder.code.n_rows)

    @property
    def held(self) -> int:
        """Number of updates that are kept until the round ends."""
        return len(self._held)

    def add(self, row: int, update: Arrays, *, lasting: bool = False) -> bool:
        """Take in the coded update of `row` of the encoding matrix, in most codes the client's index.

        Parameters
        ----------
        row : int
            The row.
        update : mapping of str to ndarray
            Its coded update.
        lasting : bool
            Whether the update stays there, unchanged, until the round ends in any case. It is then kept until all
            weights are known: that takes no room, and one sum does for all.

        Returns
        -------
        counts : bool
            False for a further copy of what has come, which is not looked at.

        Raises
        ------
        ValueError
            If there is no such row, or it came before.
        """
        check_integer("row", row, low=0, high=self.arrived.size - 1)
        if self.arrived[row]:
            raise ValueError(f"row must not have come before; got {row} again")
        self.arrived[row] = True
        early = self._decoder.early_weights(row)
        if early is not None:
            if early.copy_of in self._counted:
                return False
            self._counted.add(early.copy_of)
        self._early[row] = early
        if lasting:
            self._held[row] = early, update
        elif early is None:
            # A difference refers to bytes that nobody changes; anything else may be used again by whoever made it.
            own = isinstance(update, ScaledDifference)
            self._held[row] = None, update if own else {name: np.array(value) for name, value in update.items()}
        else:
            self._waiting.append((early, update))
            if len(self._waiting) == _TOGETHER or not isinstance(update, ScaledDifference):
                self._add_waiting()
        return True

    def finish(self) -> Update:
        """Return the decoded update of all that came; zero if nothing did. The stream is empty afterwards."""
        self._add_waiting()
        if self.arrived.any():
            alone, common, scalar = self._decoder.split(self.arrived)
            for row, early in self._early.items():
                own = (alone[row], common[row]) if early is None else (early.alone, early.common)
                self.weights[row] = float(own[0] + own[1] * scalar)
            weights = [float(self.weights[row]) for row in self._held]
            last = [update for _, update in self._held.values()]
            if 1 in self._sums:
                weights.append(scalar)
                last.append(self._sums[1])
            if last:
                add_combination([self._sum(0)], np.array([weights]), last)
        total = self._sum(0)
        self._sums.clear()
        self._held.clear()
        return total

    def _add_waiting(self) -> None:
        weights = np.array([(early.alone, early.common) for early, _ in self._waiting]).reshape(-1, 2).T
        needed = np.flatnonzero(weights.any(axis=1))
        add_combination([self._sum(i) for i in needed.tolist()], weights[needed], [one for _, one in self._waiting])
        self._waiting.clear()

    def _sum(self, index: int) -> Update:
        if index not in self._sums:
            self._sums[index] = zero_update(self._arrays)
        return self._sums[index]
