"""Least squares: the coverage closest to one that the arrivals allow."""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import lsqr

from fedgc.arrivals import ArrivalModel
from fedgc.codes import Code
from fedgc.decoders.base import CalibratedDecoder, Decoder
from fedgc.decoders.decoding import EarlyWeights
from fedgc.gram import GramModel


class LeastSquaresDecoder(Decoder):
    """In every round the weights of least ``|A' w - 1|^2``; known as optimal decoding. Exact where it can be, biased.

    Notes
    -----
    It minimises the error of each round on its own, and therefore shrinks towards zero on average: E[v] is below one
    wherever a shard may be missing. Exact recovery codes (cyclic repetition) are decoded by it. What shares its shards
    with its own copies only (whole blocks, shards of work lists) has a weight that does not depend on what else comes.

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


class _Apart(NamedTuple):
    """Rows that share their shards with equal rows only, so that what else comes does not change their weight.

    Attributes
    ----------
    first : ndarray of int, shape (n_rows,)
        The first row that is equal; -1 for a row that shares shards with one that differs.
    weight : ndarray, shape (n_rows,)
        What it and its copies count together.
    """

    first: NDArray[np.intp]
    weight: NDArray[np.float64]


class _CalibratedLeastSquares(CalibratedDecoder):
    @cached_property
    def _apart(self) -> _Apart:
        # Shards that change places take their columns with them: what is equal stays so.
        matrix = self.code.sparse_matrix.copy()
        matrix.eliminate_zeros()
        matrix.sort_indices()
        firsts: dict[tuple[bytes, bytes], int] = {}
        bounds = zip(matrix.indptr[:-1].tolist(), matrix.indptr[1:].tolist(), strict=True)
        first = np.array(
            [
                firsts.setdefault((matrix.indices[start:end].tobytes(), matrix.data[start:end].tobytes()), row)
                for row, (start, end) in enumerate(bounds)
            ],
            dtype=np.intp,
        )
        n_rows, n_shards = matrix.shape
        entries = np.diff(matrix.indptr)
        of_entry = np.repeat(first, entries)
        least, most = np.full(n_shards, n_rows), np.full(n_shards, -1)
        np.minimum.at(least, matrix.indices, of_entry)
        np.maximum.at(most, matrix.indices, of_entry)

        def by_row(values: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.bincount(np.repeat(np.arange(n_rows), entries), values, n_rows).astype(np.float64)

        mixed = (least < most).astype(np.float64)
        alone = (by_row(mixed[matrix.indices]) == 0.0) & (entries > 0)
        weight = np.zeros(n_rows)
        np.divide(by_row(matrix.data), by_row(matrix.data**2), out=weight, where=alone)
        return _Apart(np.where(alone, first, -1), weight)

    def early_weights(self, row: int) -> EarlyWeights | None:
        """Return ``sum a / sum a^2`` for a row with coefficients a that shares its shards with its copies only."""
        first = int(self._apart.first[row])
        return None if first < 0 else EarlyWeights(float(self._apart.weight[row]), 0.0, first)

    def _weights(self, arrived: NDArray[np.bool_]) -> NDArray[np.float64]:
        weights = np.zeros(self.code.n_rows)
        first, alone = self._apart
        came = np.flatnonzero(arrived & (first >= 0))
        weights[came] = alone[came] / np.bincount(first[came], minlength=first.size)[first[came]]
        # What is left shares no shard with these, and is solved for by itself.
        left = np.flatnonzero(arrived & (first < 0))
        rows = self.code.sparse_matrix[left]
        ones = np.ones(self.code.n_shards)
        if rows.shape[0] * rows.shape[1] <= _DENSE:
            if left.size:
                weights[left] = np.linalg.lstsq(rows.toarray().T, ones, rcond=None)[0]
        else:
            weights[left] = lsqr(rows.T, ones, atol=1e-14, btol=1e-14)[0]
        return weights

    def _settled(self, arrived: NDArray[np.bool_]) -> bool:
        return bool(np.abs(self.code.coverage(self._weights(arrived)) - 1.0).max() < _ROUNDING)
