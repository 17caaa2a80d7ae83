"""Capped weights: no shard counts for more than so much, at the price of a bias towards zero."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedgc.arrivals import ArrivalModel
from fedgc.codes import Code
from fedgc.decoders.base import CalibratedDecoder, Decoder
from fedgc.decoders.decoding import EarlyWeights, SplitWeights
from fedgc.gram import GramModel
from fedgc.validation import check_positive


class CappedDecoder(Decoder):
    """Another decoder whose weights are cut off.

    Parameters
    ----------
    inner : Decoder
        The decoder.
    most : float
        Largest weight of a coded update, above 0; what stands in for missing blocks comes on top.

    Raises
    ------
    ValueError
        If `most` is not a finite number above 0.

    Notes
    -----
    An unbiased rule weighs what arrives with probability p by about 1 / p. Where p is a hundredth, a single arrival is
    a hundred times its update: right on average over thousands of rounds, and a large random step in each. With a cap
    W such a shard counts W p instead of one on average: the bias is ``min(1, W p) - 1`` where updates have nothing in
    common. With a memory (:class:`fedgc.memory.UpdateMemory`) only changes are weighed, and the bias fades
    as they do.

    Examples
    --------
    >>> from fedgc.codes import Uncoded
    >>> from fedgc.decoders import OptimalUnbiasedDecoder
    >>> decoder = CappedDecoder(OptimalUnbiasedDecoder(), most=4.0)
    >>> calibrated = decoder.calibrate(Uncoded(2, 2), [0.5, 0.99], GramModel.uniform(2, 0.0))
    >>> calibrated.decode([True, True]).decoding_weights.round(9).tolist()
    [2.0, 4.0]
    """

    unbiased = False

    def __init__(self, inner: Decoder, most: float) -> None:
        self._inner = inner
        self._most = check_positive("most", most)
        self.name = f"{inner.name}, weights up to {self._most:g}"  # type: ignore[misc]
        self.weights_settled = inner.weights_settled  # type: ignore[misc]
        self.partial_work = inner.partial_work  # type: ignore[misc]

    def _calibrate(self, code: Code, arrivals: ArrivalModel, gram: GramModel) -> CalibratedDecoder:
        return _Capped(self._inner.calibrate(code, arrivals, gram), self._most)


class _Capped(CalibratedDecoder):
    def __init__(self, inner: CalibratedDecoder, most: float) -> None:
        super().__init__(inner.code)
        self._inner, self._most = inner, most

    @property
    def ends_early(self) -> bool:
        return self._inner.ends_early

    def split(self, arrived: NDArray[np.bool_]) -> SplitWeights:
        inner = self._inner.split(arrived)
        alone = np.minimum(inner.alone, self._most)
        # Copies share a weight: it is cut off as that of the first would be.
        for row in np.flatnonzero(arrived):
            early = self._inner.early_weights(int(row))
            if early is not None and early.alone > self._most:
                alone[row] = inner.alone[row] * self._most / early.alone
        return SplitWeights(alone, inner.common, inner.scalar)

    def early_weights(self, row: int) -> EarlyWeights | None:
        early = self._inner.early_weights(row)
        return None if early is None else early._replace(alone=min(early.alone, self._most))

    def _weights(self, arrived: NDArray[np.bool_]) -> NDArray[np.float64]:
        alone, common, scalar = self.split(arrived)
        weights: NDArray[np.float64] = alone + common * scalar
        return weights

    def _settled(self, arrived: NDArray[np.bool_]) -> bool:
        return self._inner.settled(arrived)
