"""Decode replies as they come: two running sums, whatever the number of replies."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fedgc.decoders.base import CalibratedDecoder, DecodingStatus
from fedgc.decoders.optimal_base import CalibratedOptimal
from fedgc.encoding import Arrays, Update, add_scaled, zero_update
from fedgc.validation import check_integer


class StreamingSum:
    """The decoded update of the optimal decoder, accumulated reply by reply.

    Parameters
    ----------
    decoder : CalibratedDecoder
        An optimal unbiased decoder, calibrated for the round.
    arrays : mapping of str to ndarray
        The global arrays; only names and shapes are used.

    Raises
    ------
    ValueError
        If the decoder is another one: only this one's weights are known up to a scalar before the round ends.

    Notes
    -----
    The weight of a coded update is ``alone + common R``, where the scalar R is known when the round ends. With
    ``S1 = sum of alone * update`` and ``S2 = sum of common * update`` the decoded update is ``S1 + R S2``. Of equal
    coded updates the first counts. Updates whose weights depend on what else comes of their block, since they overlap
    (prefix sums of lists that share shards), are kept until the end; `held` tells how many.

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
        if not isinstance(decoder, CalibratedOptimal):
            raise ValueError(f"decoder must be a calibrated optimal-unbiased decoder; got {type(decoder).__name__}")
        self._decoder = decoder
        self._alone, self._common = zero_update(arrays), zero_update(arrays)
        self._arrived = np.zeros(decoder.code.n_rows, dtype=np.bool_)
        self._counted: set[int] = set()
        self._held: dict[int, Mapping[str, np.ndarray[tuple[int, ...], np.dtype[np.float64]]]] = {}

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
        check_integer("row", row, low=0, high=self._arrived.size - 1)
        if self._arrived[row]:
            raise ValueError(f"row must not have come before; got {row} again")
        early = self._decoder.early_weights(row)
        if early is None:
            self._held[row] = {name: np.array(value, dtype=np.float64) for name, value in update.items()}
        elif early[2] not in self._counted:
            add_scaled(self._alone, early[0], update)
            add_scaled(self._common, early[1], update)
            self._counted.add(early[2])
        self._arrived[row] = True

    def finish(self) -> Update:
        """Return the decoded update of all that came; zero if nothing did."""
        if self._decoder.decode(self._arrived).status is DecodingStatus.EMPTY:
            return self._alone
        alone, common, missing_mass = self._decoder.split(self._arrived)
        for row, update in self._held.items():
            add_scaled(self._alone, float(alone[row]), update)
            add_scaled(self._common, float(common[row]), update)
        self._held.clear()
        add_scaled(self._alone, missing_mass, self._common)
        return self._alone
