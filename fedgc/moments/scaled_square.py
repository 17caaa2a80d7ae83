"""The square of the decoded update over one plus its predicted residual error."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from fedgc.arrivals import ArrivalModel
from fedgc.decoders import CalibratedDecoder
from fedgc.gram import GramModel
from fedgc.moments.base import SecondMoment, SquareOfRound
from fedgc.updates import Arrays, Update


class ScaledSquare(SecondMoment):
    """``d^2 / (1 + eps)``, with eps the predicted residual error: one number for all entries.

    Notes
    -----
    ``E|d|^2 = E[v' G v]`` for coverage v and the Gram matrix G of the shard updates, and ``|g|^2 = 1' G 1``. So
    ``d^2 / c`` with ``c = E[v' G v] / 1' G 1 = 1 + eps + 2 (E[v] - 1)' G 1 / 1' G 1`` has the right mean in the sum
    over the entries, for any decoder, code and arrivals, if the Gram model is true. Of unbiased decoders c is 1 + eps.
    It says nothing of single entries: all are divided alike, although stragglers' directions are the noisy ones.
    Needs no room, nor anything but the decoded sum.

    Examples
    --------
    >>> from fedgc.arrivals import IndependentArrivals
    >>> from fedgc.codes import Uncoded
    >>> from fedgc.decoders import OptimalUnbiasedDecoder
    >>> p, gram = IndependentArrivals([0.5, 0.5]), GramModel.uniform(2, 0.0)
    >>> decoder = OptimalUnbiasedDecoder().calibrate(Uncoded(2, 2), p, gram)
    >>> ScaledSquare().begin(decoder, p, gram, {}).square({"w": np.array([2.0])}, 1.0)["w"].round(12).tolist()
    [2.0]
    """

    name: ClassVar[str] = "scale"
    needs_updates: ClassVar[bool] = False

    def begin(
        self, decoder: CalibratedDecoder, arrivals: ArrivalModel, gram: GramModel, arrays: Arrays
    ) -> SquareOfRound:
        """Return the division by what the decoder's calibration predicts; see the base class."""
        if decoder.residual_error is None:
            raise ValueError(
                f"second_moment {self.name!r} needs a decoder whose residual error is predicted; "
                f"got {type(decoder).__name__}"
            )
        too_large = 1.0 + decoder.residual_error
        if decoder.bias is not None:
            ones = np.ones(decoder.bias.size)
            too_large += 2.0 * gram.inner(decoder.bias, ones) / gram.inner(ones, ones)
        return _Scaled(too_large)


class _Scaled(SquareOfRound):
    def __init__(self, too_large: float) -> None:
        self._too_large = too_large

    def square(self, decoded: Arrays, scale: float) -> Update:
        return {name: np.square(value) / value.dtype.type(self._too_large) for name, value in decoded.items()}
