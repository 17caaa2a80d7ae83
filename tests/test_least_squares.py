"""Least squares by blocks is least squares: what shares its shards with copies only has a weight of its own."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from fedgc.codes import Code, FractionalRepetition, MatrixCode, RandomRegularGraphCode, WorkLists
from fedgc.decoders import LeastSquaresDecoder, StreamingSum
from fedgc.gram import GramModel

#: Codes, and how many of their rows share shards with rows that differ.
CASES: dict[str, tuple[Code, int]] = {
    "blocks": (FractionalRepetition([0, 0, 1, 1, 1], [0, 0, 1]), 0),
    "a list per shard": (WorkLists([[[0], [1]], [[1], [0]]], 2), 0),
    "prefixes": (WorkLists([[[0, 1]], [[1, 0]]], 2), 4),
    "a graph": (RandomRegularGraphCode(6, 2, rng=np.random.default_rng(1)), 6),
    "coefficients": (MatrixCode([[2.0, 1.0, 0, 0, 0], [2.0, 1.0, 0, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 1, 1]]), 2),
    "a row of none": (MatrixCode([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]]), 1),
}


def solved(matrix: NDArray[np.float64], arrived: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the weights of least norm by one solve for all that arrived."""
    weights = np.zeros(len(matrix))
    if arrived.any():
        weights[arrived] = np.linalg.lstsq(matrix[arrived].T, np.ones(matrix.shape[1]), rcond=None)[0]
    return weights


@pytest.mark.parametrize("name", CASES)
def test_weights_are_those_of_one_solve_and_what_is_apart_is_not_kept(name: str) -> None:
    code, n_together = CASES[name]
    gram = GramModel.uniform(code.n_shards, 0.0)
    calibrated = LeastSquaresDecoder().calibrate(code, np.full(code.n_rows, 0.5), gram)
    assert sum(calibrated.early_weights(row) is None for row in range(code.n_rows)) == n_together
    matrix = code.encoding_matrix
    for number in range(2**code.n_rows):
        arrived = (number >> np.arange(code.n_rows)) % 2 == 1
        weights = solved(matrix, arrived)
        np.testing.assert_allclose(calibrated.decode(arrived).decoding_weights, weights, atol=1e-12)
        stream = StreamingSum(calibrated, {"w": np.zeros(code.n_shards)})
        for row in np.flatnonzero(arrived).tolist():
            stream.add(row, {"w": matrix[row]})
        np.testing.assert_allclose(stream.finish()["w"], weights @ matrix, atol=1e-12)
