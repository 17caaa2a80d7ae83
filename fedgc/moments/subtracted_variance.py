"""The square of the decoded update less its estimated variance, entry by entry."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedgc.arrivals import ArrivalModel
from fedgc.decoders import CalibratedDecoder, OptimalUnbiasedDecoder, StreamingSum, variance_weights
from fedgc.gram import GramModel
from fedgc.moments.base import SecondMoment, SquareOfRound
from fedgc.updates import Arrays, Update, zero_update


class SubtractedVariance(SecondMoment):
    """``d^2 - sum over arrived units i of w_i^2 (1 - P_i) u_i^2``: the mean is ``g^2`` exactly, in every entry.

    Notes
    -----
    For independent units, whole blocks or the rows of any code whose weights are settled before the round, the sum is
    an unbiased estimate of ``Var(d_j)``, see :func:`fedgc.decoders.variance.variance_weights`: the mean of the
    difference is ``(E d_j)^2``, whatever the updates are.

    The optimal decoder's weights of blocks that point the same way depend on what else comes, and ``Var(d_j)`` has
    products of different blocks. Their estimate takes all pairs of updates. Here a second sum is decoded for it, with
    weights 1 / P (the optimal decoder's where nothing is shared): ``h^2 - sum of w_i (w_i - 1) u_i^2`` has the mean g^2
    exactly too, though a larger variance. That takes the room of two models, one where d itself will do.

    Shards of a work list come in an order, so that they are no independent units: refused; :class:`ScaledSquare`
    serves them.

    A single estimate is negative wherever little came, and nearly half of the time where there is much noise. Whoever
    cuts it off at zero has a bias upwards again; a mean over rounds that is cut off afterwards has less of it.
    """

    name: ClassVar[str] = "subtract"
    needs_independence: ClassVar[bool] = True

    def begin(
        self, decoder: CalibratedDecoder, arrivals: ArrivalModel, gram: GramModel, arrays: Arrays
    ) -> SquareOfRound:
        """Return the sum of squares, with a second decoded sum if the first one's weights depend on what comes."""
        try:
            return _Subtracted(decoder, variance_weights(decoder, arrivals), arrays, second=False)
        except ValueError:
            pass
        try:
            apart = GramModel(gram.incoherent + gram.coherent**2, np.zeros(gram.coherent.size))
            second = OptimalUnbiasedDecoder().calibrate(decoder.code, arrivals, apart)
            return _Subtracted(second, variance_weights(second, arrivals), arrays, second=True)
        except ValueError as reason:
            raise ValueError(
                f"second_moment {self.name!r} needs whole blocks, or settled weights, that arrive independently "
                f"('scale' does not); got others: {reason}"
            ) from None


class _Subtracted(SquareOfRound):
    def __init__(
        self, decoder: CalibratedDecoder, weights: NDArray[np.float64], arrays: Arrays, *, second: bool
    ) -> None:
        self._decoder, self._weights = decoder, weights
        self._variance = zero_update(arrays)
        self._stream = StreamingSum(decoder, arrays) if second else None
        self._counted: set[int] = set()

    def add(self, row: int, update: Arrays, *, lasting: bool = False) -> None:
        if self._stream is not None:
            self._stream.add(row, update, lasting=lasting)
        early = self._decoder.early_weights(row)
        if early is None or early.copy_of in self._counted:
            return
        self._counted.add(early.copy_of)
        with np.errstate(over="ignore", invalid="ignore"):
            for name, total in self._variance.items():
                squared = np.square(np.asarray(update[name], total.dtype))
                np.add(total, squared * total.dtype.type(self._weights[row]), out=total)

    def square(self, decoded: Arrays, scale: float) -> Update:
        first = decoded
        if self._stream is not None:
            first = {name: value * value.dtype.type(scale) for name, value in self._stream.finish().items()}
        return {
            name: np.square(value) - self._variance[name] * value.dtype.type(scale**2) for name, value in first.items()
        }
