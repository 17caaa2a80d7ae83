"""Fixed weights against their stationarity conditions and against cvxpy."""

from __future__ import annotations

import numpy as np
import pytest

from fedgc.codes import Chain, Code, CommonShard, FractionalRepetition, MatrixCode, StochasticGradientCode, Uncoded
from fedgc.decoders import CalibrationStatus, FixedAlignedDecoder, FixedDecoder, FixedGeneralDecoder
from fedgc.gram import GramModel

RNG = np.random.default_rng([31, 7])
P = RNG.uniform(0.05, 0.95, 8)
CODES: dict[str, Code] = {
    "uncoded": Uncoded(8, 8),
    "fractional repetition": FractionalRepetition(np.arange(8) % 4, np.arange(8) // 2),
    "scheme I": CommonShard(P, 8),
    "scheme II": Chain(P),
    "stochastic": StochasticGradientCode(8, 12, 3, rng=RNG),
    "two components": MatrixCode(np.kron(np.eye(2), [[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1], [1, 0, 0, 1]])),
}
DELTA = P / (1 - P)


def stationarity(coefficients: np.ndarray, support: np.ndarray, G: np.ndarray) -> float:
    """Largest violation of ``delta_i (G a_i)_j = lambda_j`` on the support, relative to the largest gradient."""
    gradient = DELTA[:, None] * (coefficients @ G)
    worst = 0.0
    for shard in range(G.shape[0]):
        values = gradient[support[:, shard], shard]
        worst = max(worst, float(np.ptp(values)))
    return worst / float(np.abs(gradient[support]).max())


@pytest.mark.parametrize("name", CODES)
@pytest.mark.parametrize("kind", ["orthogonal", "mixed", "nearly aligned"])
def test_fixed_general_is_stationary_and_feasible(name: str, kind: str) -> None:
    code, rng = CODES[name], np.random.default_rng(5)
    d, r = rng.uniform(0.2, 2, code.n_shards), rng.uniform(0.2, 1.5, code.n_shards)
    gram = GramModel(d * (1e-4 if kind == "nearly aligned" else 1), r * (kind != "orthogonal"))
    calibrated = FixedGeneralDecoder().calibrate(code, P, gram)
    matrix = calibrated.code.encoding_matrix
    np.testing.assert_allclose(matrix.sum(axis=0), 1.0, atol=1e-12)
    assert stationarity(matrix, code.encoding_matrix != 0, gram.matrix) < 1e-8
    by_cvxpy = FixedGeneralDecoder(solver="cvxpy").calibrate(code, P, gram)
    # The interior-point solver stops at a relative gap of about 1e-8.
    assert calibrated.residual_error <= by_cvxpy.residual_error * (1 + 1e-9)
    assert calibrated.residual_error == pytest.approx(by_cvxpy.residual_error, rel=1e-6)


@pytest.mark.parametrize("name", CODES)
def test_the_closed_form_for_orthogonal_updates_is_stationary(name: str) -> None:
    code = CODES[name]
    gram = GramModel(np.random.default_rng(6).uniform(0.2, 2, code.n_shards), np.zeros(code.n_shards))
    calibrated = FixedDecoder().calibrate(code, P, gram)
    # With blocks the coefficients are in the weights, which the clients of the others have in theirs.
    matrix = (
        calibrated.code.encoding_matrix
        * (calibrated.decode(np.ones(8, dtype=bool)).decoding_weights * (1 - P))[:, None]
    )
    np.testing.assert_allclose(matrix.sum(axis=0), 1.0, atol=1e-12)
    assert stationarity(matrix, code.encoding_matrix != 0, gram.matrix) < 1e-8
    by_cvxpy = FixedGeneralDecoder(solver="cvxpy").calibrate(code, P, gram)
    assert calibrated.residual_error == pytest.approx(by_cvxpy.residual_error, rel=1e-6)


@pytest.mark.parametrize("name", CODES)
def test_the_closed_form_for_aligned_updates_is_stationary(name: str) -> None:
    """For G = 11' the gradient is ``delta_i`` times the row sum, the same for all clients that shards join."""
    code = CODES[name]
    m = code.n_shards
    calibrated = FixedAlignedDecoder().calibrate(code, P, GramModel(np.full(m, 1e-9), np.ones(m)))
    matrix = calibrated.code.encoding_matrix
    np.testing.assert_allclose(matrix.sum(axis=0), 1.0, atol=1e-12)
    assert stationarity(matrix, code.encoding_matrix != 0, np.ones((m, m))) < 1e-8
    if name in ("scheme I", "scheme II", "stochastic"):  # joined: Theorem 1
        np.testing.assert_allclose(matrix.sum(axis=1), m / DELTA / (1 / DELTA).sum(), rtol=1e-10)


def test_what_cannot_be_solved_is_still_unbiased_and_says_so() -> None:
    p, size = np.array([0.1, 0.5, 0.9, 0.1]), 1e6
    code = MatrixCode([[1, 0, 0, 1], [0, 1, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0]])
    gram = GramModel(np.full(4, 1e-4), [size, 1.0, size / 2, 1.0])
    calibrated = FixedGeneralDecoder().calibrate(code, p, gram)
    best = FixedGeneralDecoder().calibrate(code, p, GramModel(np.full(4, 1e-4), [1e4, 1.0, 5e3, 1.0])).residual_error
    assert calibrated.status is CalibrationStatus.INACCURATE or calibrated.residual_error < best * (1 + 1e-3)
    singular = FixedGeneralDecoder().calibrate(Uncoded(2, 2), [0.5, 0.5], GramModel([1e-6, 1e6], [1e5, 1.0]))
    np.testing.assert_allclose(singular.code.encoding_matrix, np.eye(2))


def test_unknown_solvers_are_refused() -> None:
    with pytest.raises(ValueError, match="solver must be one of cvxpy, stationarity; got 'x'"):
        FixedGeneralDecoder(solver="x")


@pytest.mark.parametrize("decoder", [FixedDecoder(), FixedAlignedDecoder(), FixedGeneralDecoder()])
def test_shards_that_nobody_holds_are_refused(decoder: FixedDecoder) -> None:
    code = MatrixCode([[1.0, 0.0]], allow_unheld=True)
    with pytest.raises(ValueError, match="every shard must be held by a client; got none for shard 1"):
        decoder.calibrate(code, [0.5], GramModel.uniform(2, 0.1))
