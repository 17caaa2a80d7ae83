"""Sums of whatever arrived: plain, or scaled by how many came."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedgc.arrivals import ArrivalModel
from fedgc.codes import Code
from fedgc.decoders.base import CalibratedDecoder, Decoder
from fedgc.decoders.decoding import EarlyWeights, SplitWeights
from fedgc.decoders.linear import CalibratedLinear
from fedgc.gram import GramModel


class SumDecoder(Decoder):
    """Every arrival counts once, as it is: what the Bernoulli code's and ErasureHead's comparison code does. Biased.

    Parameters
    ----------
    normalise : bool
        Whether the sum is divided by the mean coefficient ``mean over shards of E[v]``, which is the fair form.

    Examples
    --------
    >>> from fedgc.codes import Uncoded
    >>> SumDecoder().calibrate(Uncoded(2, 2), [0.5, 0.25], GramModel.uniform(2, 0.0)).bias.tolist()
    [-0.5, -0.25]
    """

    name: ClassVar[str] = "sum"
    unbiased: ClassVar[bool] = False
    weights_settled: ClassVar[bool] = True

    def __init__(self, *, normalise: bool = False) -> None:
        self._normalise = normalise

    def _calibrate(self, code: Code, arrivals: ArrivalModel, gram: GramModel) -> CalibratedDecoder:
        weight = 1.0
        if self._normalise:
            weight = 1.0 / float(np.mean(code.coverage(arrivals.row_probability)))
        return CalibratedLinear(code, np.full(code.n_rows, weight), arrivals, gram)


class NormalisedSumDecoder(SumDecoder):
    """The sum of arrivals divided by its mean coefficient, so that only differences between shards are biased."""

    name: ClassVar[str] = "normalised-sum"

    def __init__(self) -> None:
        super().__init__(normalise=True)


class ScaledMeanDecoder(Decoder):
    """The sum of arrivals times ``n_clients / number of arrivals``: "divide by who came". Biased.

    Notes
    -----
    Columns are scaled to sum to one first, so that a complete round is exact. This is FedAvg over whoever came, and
    IS-SGD in its fair form.

    Examples
    --------
    >>> from fedgc.codes import Uncoded
    >>> calibrated = ScaledMeanDecoder().calibrate(Uncoded(4, 4), [0.5] * 4, GramModel.uniform(4, 0.5))
    >>> calibrated.decode([True, False, True, False]).coverage.tolist()
    [2.0, 0.0, 2.0, 0.0]
    """

    name: ClassVar[str] = "scaled-mean"
    unbiased: ClassVar[bool] = False
    partial_work: ClassVar[tuple[str, ...]] = ()

    def _calibrate(self, code: Code, arrivals: ArrivalModel, gram: GramModel) -> CalibratedDecoder:
        self._straggle_prob(arrivals)
        return _CalibratedScaledMean(code)


class _CalibratedScaledMean(CalibratedDecoder):
    def __init__(self, code: Code) -> None:
        super().__init__(code)
        self._all_count = float(np.mean(code.coverage(np.ones(code.n_clients))))

    def split(self, arrived: NDArray[np.bool_]) -> SplitWeights:
        """Return the weights as a count that is only known in the end."""
        scale = self.code.n_clients / max(int(arrived.sum()), 1) / self._all_count
        return SplitWeights(np.zeros(arrived.size), arrived.astype(np.float64), scale)

    def early_weights(self, row: int) -> EarlyWeights:
        """Return that every row counts as much as any other."""
        return EarlyWeights(0.0, 1.0, row)

    def _weights(self, arrived: NDArray[np.bool_]) -> NDArray[np.float64]:
        count = max(int(arrived.sum()), 1)
        return np.where(arrived, self.code.n_clients / count / self._all_count, 0.0)
