"""Least squares: the coverage closest to one that the arrivals allow."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import lsqr

from fedgc.arrivals import ArrivalModel
from fedgc.codes import Code
from fedgc.decoders.base import CalibratedDecoder, Decoder
from fedgc.gram import GramModel


class LeastSquaresDecoder(Decoder):
    """In every round the weights of least ``|A' w - 1|^2``; known as optimal decoding. Exact where it can be, biased.

    Notes
    -----
    It minimises the error of each round on its own, and therefore shrinks towards zero on average: E[v] is below one
    wherever a shard may be missing. Exact recovery codes (cyclic repetition) are decoded by it.

    References
    ----------
    M. Glasgow, M. Wootters, "Approximate Gradient Coding with Optimal Decoding", IEEE J. Sel. Areas Inf. Theory 2(3),
    2021.

    Examples
    --------
    >>> from fedgc.codes import MatrixCode
    >>> code = MatrixCode([[1, 1, 0], [0, 1, 1]])
    >>> calibrated = LeastSquaresDecoder().calibrate(code, [0.5, 0.5], GramModel.uniform(3, 0.0))
    >>> calibrated.decode([True, True]).coverage.round(4).tolist()
    [0.6667, 1.3333, 0.6667]
    """

    name: ClassVar[str] = "least-squares"
    unbiased: ClassVar[bool] = False

    def _calibrate(self, code: Code, arrivals: ArrivalModel, gram: GramModel) -> CalibratedDecoder:
        return _CalibratedLeastSquares(code)


#: Coverage this close to one is full recovery.
_ROUNDING = 1e-9

#: Up to this many entries the arrived rows are solved as a dense matrix.
_DENSE = 4 * 10**6


class _CalibratedLeastSquares(CalibratedDecoder):
    def _weights(self, arrived: NDArray[np.bool_]) -> NDArray[np.float64]:
        weights = np.zeros(self.code.n_rows)
        rows = self.code.sparse_matrix[np.flatnonzero(arrived)]
        ones = np.ones(self.code.n_shards)
        if rows.shape[0] * rows.shape[1] <= _DENSE:
            if arrived.any():
                weights[arrived] = np.linalg.lstsq(rows.toarray().T, ones, rcond=None)[0]
        else:
            weights[arrived] = lsqr(rows.T, ones, atol=1e-14, btol=1e-14)[0]
        return weights

    def _settled(self, arrived: NDArray[np.bool_]) -> bool:
        return bool(np.abs(self.code.coverage(self._weights(arrived)) - 1.0).max() < _ROUNDING)
