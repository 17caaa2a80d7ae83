"""Decode replies as they come: two running sums at most, whatever the number of replies."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedgc.decoders.base import CalibratedDecoder
from fedgc.updates import Arrays, Update, add_to_all, zero_update
from fedgc.validation import check_integer


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
    are kept until the end: prefix sums of lists that share shards, and all of them for decoders that solve for their
    weights (least squares). `held` tells how many.

    Examples
    --------
    >>> from fedgc.codes import FractionalRepetition
    >>> from fedgc.decoders import OptimalUnbiasedDecoder
    >>> from fedgc.gram import GramModel
    >>> code = FractionalRepetition([0, 0, 1], [0, 1])
    >>> decoder = OptimalUnbiasedDecoder().calibrate(code, [0.5, 0.5, 0.2], GramModel.uniform(2, 0.0))
    >>> stream = StreamingSum(decoder, {"w": np.zeros(1)})
    >>> stream.add(0, {"w": np.ones(1)})
    >>> stream.add(1, {"w": np.ones(1)})
    >>> stream.finish()["w"].round(12).tolist()
    [1.333333333333]
    """

    def __init__(self, decoder: CalibratedDecoder, arrays: Arrays) -> None:
        self._decoder = decoder
        self._arrays = arrays
        self._alone: Update | None = None
        self._common: Update | None = None
        self._counted: set[int] = set()
        self._held: dict[int, Update] = {}
        self.arrived: NDArray[np.bool_] = np.zeros(decoder.code.n_rows, dtype=np.bool_)

    @property
    def held(self) -> int:
        """Number of updates that are kept until the round ends."""
        return len(self._held)

    def add(self, row: int, update: Arrays) -> None:
        """Take in the coded update of `row` of the encoding matrix, in most codes the client's index.

        Raises
        ------
        ValueError
            If there is no such row, or it came before.
        """
        check_integer("row", row, low=0, high=self.arrived.size - 1)
        if self.arrived[row]:
            raise ValueError(f"row must not have come before; got {row} again")
        early = self._decoder.early_weights(row)
        if early is None:
            self._held[row] = {name: np.array(value) for name, value in update.items()}
        elif early.copy_of not in self._counted:
            self._add(early.alone, early.common, update)
            self._counted.add(early.copy_of)
        self.arrived[row] = True

    def finish(self) -> Update:
        """Return the decoded update of all that came; zero if nothing did. The stream is empty afterwards."""
        if self.arrived.any():
            alone, common, scalar = self._decoder.split(self.arrived)
            while self._held:
                row, update = self._held.popitem()
                self._add(float(alone[row]), float(common[row]), update)
            if self._common is not None:
                self._add(scalar, 0.0, self._common)
        total = zero_update(self._arrays) if self._alone is None else self._alone
        self._alone = self._common = None
        return total

    def _add(self, alone: float, common: float, update: Arrays) -> None:
        totals = []
        if alone != 0.0:
            self._alone = zero_update(self._arrays) if self._alone is None else self._alone
            totals.append((self._alone, alone))
        if common != 0.0:
            self._common = zero_update(self._arrays) if self._common is None else self._common
            totals.append((self._common, common))
        add_to_all(totals, update)
