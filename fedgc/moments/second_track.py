"""The square of a second decoded update, whose weights trade bias against variance."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from fedgc.arrivals import ArrivalModel
from fedgc.decoders import CalibratedDecoder, Decoder, StreamingSum
from fedgc.gram import GramModel
from fedgc.moments.base import SecondMoment, SquareOfRound
from fedgc.updates import Arrays, Update


class SecondTrack(SecondMoment):
    """``h^2``, with h decoded from the same coded updates by another decoder.

    Parameters
    ----------
    decoder : Decoder
        The decoder of the second track, on the code that the first one decodes:
        :class:`fedgc.decoders.BoundedMassDecoder` is the one of the literature, for clients that each send a row of
        their own; for blocks :class:`fedgc.decoders.LeastSquaresDecoder` is the same trade, block by block.

    Notes
    -----
    Takes the room of a second model. Its square is ``(E h)^2 + Var(h)``: too small where h falls short of g, too large
    by what noise it has.

    References
    ----------
    H. Song, J. Choi, arXiv 2510.22539, appendix on Adam.
    """

    name: ClassVar[str] = "second-track"

    def __init__(self, decoder: Decoder) -> None:
        self._rule = decoder

    def begin(
        self, decoder: CalibratedDecoder, arrivals: ArrivalModel, gram: GramModel, arrays: Arrays
    ) -> SquareOfRound:
        """Return the second sum; see the base class."""
        second = self._rule.calibrate(decoder.code, arrivals, gram)
        gap = abs(second.code.sparse_matrix - decoder.code.sparse_matrix)
        if gap.nnz and float(gap.max()) > 0.0:
            raise ValueError(
                f"second_decoder must decode the code as it is; got {self._rule.name!r}, which chooses coefficients"
            )
        return _Second(StreamingSum(second, arrays))


class _Second(SquareOfRound):
    def __init__(self, stream: StreamingSum) -> None:
        self._stream = stream

    def add(self, row: int, update: Arrays, *, lasting: bool = False) -> None:
        self._stream.add(row, update, lasting=lasting)

    def square(self, decoded: Arrays, scale: float) -> Update:
        return {name: np.square(value * value.dtype.type(scale)) for name, value in self._stream.finish().items()}
